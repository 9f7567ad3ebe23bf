"""The prediction API. Each view reads the body, calls one service, and puts the results into words."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from drf_spectacular.utils import OpenApiExample, PolymorphicProxySerializer, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from inference.live import LIVE, Served
from inference.parsing import classifier_named, question_of
from inference.results import shown
from inference.serializers import (
    ClassifyRequestSerializer,
    ModelsSerializer,
    PredictRequestSerializer,
    ResultSerializer,
    ResultsSerializer,
)
from inference.services import Asked, text_ask
from kalimtak.core.api import ApiView
from kalimtak.core.auth import Caller
from kalimtak.core.errors import InvalidInput
from kalimtak.core.lean import LeanView
from kalimtak.core.models import Scope
from kalimtak.core.openapi import error_responses

RESULT = {
    "interaction_id": "01999d5e-7b34-7c1e-9f0a-3d0f6c2b8a11",
    "classifier": "emotion",
    "label": "joy",
    "confidence": 0.9245,
    "scores": {"joy": 0.9245, "love": 0.0755},
    "abstained": False,
    "threshold": 0.5,
    "alternatives": [],
    "source": "model",
    "model_version": "emotion/3",
    "deployment": "production",
    "flags": [],
    "latency_ms": 4.1,
}
CLARITY = {
    "classifier": "clarity",
    "label": "Clear Reply",
    "scores": {"Clear Reply": 0.9245, "Ambivalent": 0.0755},
    "model_version": "clarity/1",
    "clarity_label": "Clear Reply",
}
ERRORS = error_responses(404, 409, conflicts="`request_id_reused`: the `request_id` was used for another request.")
ANSWER = PolymorphicProxySerializer(
    component_name="PredictAnswer", serializers=[ResultSerializer, ResultsSerializer], resource_type_field_name=None
)


@extend_schema_view(
    post=extend_schema(
        operation_id="predict",
        summary="Classify a text, or a batch",
        request=PredictRequestSerializer,
        responses={200: ANSWER} | ERRORS,
        examples=[
            OpenApiExample("One text", {"text": "What a lovely morning!"}, request_only=True),
            OpenApiExample("A batch", {"classifier": "intent", "texts": ["Hello", "Where is it?"]}, request_only=True),
            OpenApiExample("A result", RESULT, response_only=True, status_codes=["200"]),
        ],
    )
)
class PredictView(LeanView):
    """Answer one text or up to 256."""

    required_scope = Scope.PREDICT

    def begin(self, caller: Caller, body: Any, captured: Mapping[str, str], *, may_wait: bool = True) -> "Reply":
        return ask(caller, body, classifier_named(body), may_wait=may_wait)


@extend_schema_view(
    post=extend_schema(
        operation_id="classify",
        summary="Classify by one classifier",
        request=ClassifyRequestSerializer,
        responses={200: ANSWER} | ERRORS,
        examples=[
            OpenApiExample(
                "Own fields", {"question": "Will you resign?", "context": "No, I will not."}, request_only=True
            ),
            OpenApiExample("A result", RESULT | CLARITY, response_only=True, status_codes=["200"]),
        ],
    )
)
class ClassifyView(LeanView):
    """Answer by the classifier of this route."""

    required_scope = Scope.PREDICT

    def begin(self, caller: Caller, body: Any, captured: Mapping[str, str], *, may_wait: bool = True) -> "Reply":
        route, named = captured["route"], classifier_named(body)
        if named and named != route:
            message = f"This is the route of {route}; leave it out, or ask /api/predict."
            raise InvalidInput(message, fields={"classifier": [message]})
        return ask(caller, body, route, own_label=True, may_wait=may_wait)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request will be answered with; `label_field` names the key that repeats the label, where one does."""

    asked: Asked
    is_batch: bool
    label_field: str

    @property
    def future(self) -> Future[Any]:
        return self.asked.future

    def result(self, seconds: float | None = None) -> dict[str, Any]:
        """One result, or `{"results": […]}` for a batch."""
        results = self.asked.result(seconds)
        if self.label_field:
            results = [shown(result, label_field=self.label_field) for result in results]
        return {"results": results} if self.is_batch else results[0]


def ask(caller: Caller, body: Any, slug: str, *, own_label: bool = False, may_wait: bool) -> Reply:
    """Ask the classifier `slug`; the label comes under the classifier's own name too if wanted."""
    served = LIVE.current(may_wait=may_wait).get(slug)
    question = question_of(body, served.input_fields, classifier=served.slug)
    asked = text_ask(
        served,
        question.items,
        caller=caller,
        top_k=question.top_k,
        request_id=question.request_id,
        may_wait=may_wait,
    )
    return Reply(asked, question.is_batch, served.label_field if own_label else "")


class ModelsView(ApiView):
    """Which classifiers can be asked."""

    required_scope = Scope.PREDICT

    @extend_schema(
        operation_id="models",
        summary="Classifiers, their labels, fields, routes and live versions",
        responses={200: ModelsSerializer} | error_responses(takes_body=False),
    )
    def get(self, request: Request) -> Response:
        return Response({"models": [description_of(served) for served in LIVE.current().classifiers.values()]})


def description_of(served: Served) -> dict[str, Any]:
    """What clients may know of a classifier."""
    return {
        "classifier": served.slug,
        "name": served.name,
        "description": served.description,
        "route": f"/api/classify/{served.slug}",
        "default": served.is_default,
        "labels": list(served.labels),
        "descriptions": dict(served.descriptions),
        "input_fields": list(served.input_fields),
        "label_field": served.label_field,
        "multi_label": served.multi_label,
        "threshold": served.threshold,
        "live": [
            {"model_version": version.ref, "role": version.role, "share": version.share} for version in served.live
        ],
    }
