"""`/api/admin/deploy` and `/api/admin/rollback`: who answers from now on."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from kalimtak.core.api import ApiView
from kalimtak.core.auth import Caller, caller_of
from kalimtak.core.models import Scope
from kalimtak.core.openapi import error_responses
from registry.serializers import DeploymentSerializer, DeployRequestSerializer, RollbackRequestSerializer
from registry.services import classifier_get, version_deploy, version_get, version_rollback

_DEPLOYMENT: dict[str, Any] = {
    "deployment": 7,
    "version": "emotion/3",
    "classifier": "emotion",
    "role": "production",
    "share": 100,
    "started_at": "2026-01-05T09:30:00Z",
    "actor": "olga",
    "reason": "",
    "forced": False,
}
_REFUSED: dict[str, Any] = {
    "error": {
        "code": "gate_refused",
        "message": "The gate does not let emotion/3 through: Macro-F1 fell from 91.0 % to 84.2 %; …",
        "fields": {"gate": ["Macro-F1 fell from 91.0 % to 84.2 %; the policy allows a drop of 1 point."]},
    }
}
_ROLLBACK = {"classifier": "emotion", "reason": "answers look odd"}

_DEPLOY_CONFLICTS = (
    "`gate_refused` (reasons in `fields.gate`), `not_verified`, `corrupt_artefact`, `already_live`, "
    "`deployment_race`, `not_available`"
)
_ROLLBACK_CONFLICTS = (
    "`nothing_to_roll_back`, `already_live`, `not_a_rollback`, `not_verified`, `corrupt_artefact`, `deployment_race`"
)


def may_force(caller: Caller) -> bool:
    """Deploying against the gate takes staff a permission of its own, an API key the scopes deploy and admin."""
    if caller.kind == "user":
        return bool(caller.user.has_perm("registry.force_deploy_modelversion"))
    return {Scope.DEPLOY, Scope.ADMIN} <= caller.scopes


class DeployView(ApiView):
    """Put a version into production, if the gate agrees."""

    required_scope = Scope.DEPLOY

    @extend_schema(
        operation_id="deploy",
        summary="Let a version answer for its classifier",
        request=DeployRequestSerializer,
        responses={
            201: DeploymentSerializer,
            **error_responses(404, 409, conflicts=_DEPLOY_CONFLICTS),
        },
        examples=[
            OpenApiExample("Deploy", value={"version": "emotion/3"}, request_only=True),
            OpenApiExample("Deployed", value=_DEPLOYMENT, response_only=True, status_codes=["201"]),
            OpenApiExample("Refused by the gate", value=_REFUSED, response_only=True, status_codes=["409"]),
        ],
    )
    def post(self, request: Request) -> Response:
        serializer = DeployRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        caller = caller_of(request)
        deployment = version_deploy(
            version_get(asked.pop("version")), actor=caller.name, may_force=may_force(caller), **asked
        )
        return Response(DeploymentSerializer(deployment).data, status=201)


class RollbackView(ApiView):
    """Let an earlier version answer again."""

    required_scope = Scope.DEPLOY

    @extend_schema(
        operation_id="rollback",
        summary="Take the newest deployment of a classifier back",
        request=RollbackRequestSerializer,
        responses={
            201: DeploymentSerializer,
            **error_responses(404, 409, conflicts=_ROLLBACK_CONFLICTS),
        },
        examples=[
            OpenApiExample("Roll back", value=_ROLLBACK, request_only=True),
            OpenApiExample(
                "Now in force",
                value=_DEPLOYMENT | {"deployment": 8, "version": "emotion/2", "reason": "answers look odd"},
                response_only=True,
                status_codes=["201"],
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        serializer = RollbackRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        deployment = version_rollback(
            classifier_get(asked["classifier"]),
            actor=caller_of(request).name,
            to=asked.get("to"),
            reason=asked["reason"],
        )
        return Response(DeploymentSerializer(deployment).data, status=201)
