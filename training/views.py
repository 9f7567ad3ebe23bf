"""The endpoints by which clients teach and staff load, curate and watch. Each reads the body and calls one service."""

import uuid
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, PolymorphicProxySerializer, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from interactions.services import feedback_give, source_of
from kalimtak.core import jobs
from kalimtak.core.api import ApiView, StrictJSONParser, refuse_unknown_keys
from kalimtak.core.auth import caller_of
from kalimtak.core.errors import InvalidInput, NotFound
from kalimtak.core.models import Job, Scope
from kalimtak.core.openapi import error_responses
from registry.models import Classifier
from registry.services import classifier_get
from training import services
from training.serializers import (
    CurateRequestSerializer,
    CurationStatsSerializer,
    DatasetQueuedSerializer,
    DatasetUploadSerializer,
    ExampleRequestSerializer,
    ExampleResponseSerializer,
    FeedbackRequestSerializer,
    FeedbackResponseSerializer,
    JobQueuedSerializer,
    JobSerializer,
    RetrainRequestSerializer,
)

INLINE_EVIDENCE = 20_000  # pieces of evidence, and items to compare, that are done well within 30 seconds


def object_of(request: Request) -> Mapping[str, Any]:
    """The body, which must be a JSON object or a form."""
    if not isinstance(request.data, Mapping):
        raise InvalidInput("The body must be a JSON object.", fields={"body": ["Must be an object."]})
    return request.data


class FeedbackView(ApiView):
    """Rate or correct an answer, or give an example of one's own."""

    required_scope = Scope.FEEDBACK

    @extend_schema(
        operation_id="feedback",
        summary="Rate or correct an answer, or give an example",
        request=PolymorphicProxySerializer(
            component_name="FeedbackOrExample",
            serializers=[FeedbackRequestSerializer, ExampleRequestSerializer],
            resource_type_field_name=None,
        ),
        responses={
            201: PolymorphicProxySerializer(
                component_name="FeedbackAnswer",
                serializers=[FeedbackResponseSerializer, ExampleResponseSerializer],
                resource_type_field_name=None,
            ),
            200: OpenApiResponse(FeedbackResponseSerializer, "An earlier feedback of the same source was updated."),
        }
        | error_responses(404),
        examples=[
            OpenApiExample(
                "A correction",
                {"interaction_id": "01999d5e-7b34-7c1e-9f0a-3d0f6c2b8a11", "rating": 2, "correct_label": "sadness"},
                request_only=True,
            ),
            OpenApiExample(
                "Several labels",
                {"interaction_id": "01999d5e-7b34-7c1e-9f0a-3d0f6c2b8a11", "correct_labels": ["joy", "love"]},
                request_only=True,
            ),
            OpenApiExample(
                "An example",
                {"classifier": "emotion", "text": "I could not stop smiling.", "correct_label": "joy"},
                request_only=True,
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        body = object_of(request)
        if "interaction_id" not in body and "classifier" in body:
            return self.add_example(request, body)
        given = FeedbackRequestSerializer(data=body)
        given.is_valid(raise_exception=True)
        feedback, is_first = feedback_give(caller=caller_of(request), **given.validated_data)
        answer = {
            "feedback_id": feedback.pk,
            "interaction_id": str(feedback.interaction_id),
            "status": "recorded" if is_first else "updated",
        }
        return Response(answer, status=201 if is_first else 200)

    def add_example(self, request: Request, body: Mapping[str, Any]) -> Response:
        given = ExampleRequestSerializer(data=body)
        given.is_valid(raise_exception=True)
        caller = caller_of(request)
        # Whoever has no key must not pass for a known subject: their word is trusted less.
        subject = "" if caller.kind == "anonymous" else given.validated_data["subject"]
        classifier = classifier_get(given.validated_data["classifier"])
        refuse_unknown_keys(body, (set(given.fields) - {"text"}) | set(classifier.input_fields))
        item = services.example_add(
            classifier,
            fields={name: body.get(name, "") for name in classifier.input_fields},
            label=given.validated_data.get("correct_label", ""),
            labels=given.validated_data.get("correct_labels"),
            caller=caller,
            source=source_of(caller, subject),
        )
        return Response({"item_id": item.pk, "status": item.status}, status=201)


class LoadDatasetView(ApiView):
    """Load a data set in the background."""

    required_scope = Scope.ADMIN
    parser_classes = [MultiPartParser, StrictJSONParser]

    @extend_schema(
        operation_id="admin_load_dataset",
        summary="Load a data set from a file or an allowed host, and perhaps train on it",
        request={"multipart/form-data": DatasetUploadSerializer, "application/json": DatasetUploadSerializer},
        responses={202: DatasetQueuedSerializer} | error_responses(404),
        examples=[
            OpenApiExample(
                "By URL",
                {"classifier": "emotion", "url": "https://data.example.org/emotion.csv", "then": "train"},
                request_only=True,
                media_type="application/json",
            )
        ],
    )
    def post(self, request: Request) -> Response:
        given = DatasetUploadSerializer(data=object_of(request))
        given.is_valid(raise_exception=True)
        data, actor = given.validated_data, caller_of(request).name
        classifier = classifier_get(data["classifier"])
        options = {"text_fields": data.get("text_field", []), "label_field": data.get("label_field", "")}
        common: dict[str, Any] = {"role": data["role"], "split": data.get("split", ""), "options": options}
        common |= {"actor": actor, "then": data["then"]}
        if "url" in data:
            dataset = services.dataset_add_url(classifier, url=data["url"], **common)
        else:
            dataset = services.dataset_add(classifier, source=data["file"].file, name=data["file"].name, **common)
        return Response({"job": str(dataset.job_id), "dataset": dataset.pk}, status=202)


class CurateView(ApiView):
    """Take in the feedback that waits, now."""

    required_scope = Scope.ADMIN

    @extend_schema(
        operation_id="admin_curate_training_data",
        summary="Turn waiting feedback into training items",
        request=CurateRequestSerializer,
        responses={
            200: CurationStatsSerializer,
            202: OpenApiResponse(JobQueuedSerializer, "So much waits that a job does it."),
        }
        | error_responses(404),
        examples=[OpenApiExample("Look only", {"classifier": "emotion", "dry_run": True}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        given = CurateRequestSerializer(data=object_of(request))
        given.is_valid(raise_exception=True)
        slug, dry_run = given.validated_data.get("classifier", ""), given.validated_data["dry_run"]
        classifier = classifier_get(slug) if slug else None
        actor = caller_of(request).name
        waiting = [classifier] if classifier else Classifier.objects.serving()
        if sum(services.work_waiting(each) for each in waiting) > INLINE_EVIDENCE:
            job = jobs.enqueue("curate", {"classifier": slug, "dry_run": dry_run}, actor=actor)
            return Response({"job": str(job.pk)}, status=202)
        stats = services.examples_curate(classifier=classifier, dry_run=dry_run, actor=actor)
        if stats.extracted and not dry_run:
            services.queue_rank_later(classifier, actor=actor)
        return Response(stats.to_dict())


class RetrainView(ApiView):
    """Train a new version from what is approved now."""

    required_scope = Scope.ADMIN

    @extend_schema(
        operation_id="admin_retrain",
        summary="Train a new version from what is approved now, and perhaps deploy it",
        description="`no_data` and `one_class` (409) say what is missing. The job's result names the version.",
        request=RetrainRequestSerializer,
        responses={202: JobQueuedSerializer} | error_responses(404, 409),
        examples=[
            OpenApiExample("Train and deploy", {"classifier": "emotion", "then": "deploy"}, request_only=True),
            OpenApiExample(
                "Queued",
                {"job": "01999d5e-7b34-7c1e-9f0a-3d0f6c2b8a11"},
                response_only=True,
                status_codes=["202"],
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        given = RetrainRequestSerializer(data=object_of(request))
        given.is_valid(raise_exception=True)
        classifier = classifier_get(given.validated_data["classifier"])
        run = services.run_start(classifier, actor=caller_of(request).name, then=given.validated_data["then"])
        return Response({"job": str(run.job_id)}, status=202)


class JobView(ApiView):
    """How far a job is."""

    required_scope = Scope.ADMIN

    @extend_schema(
        operation_id="admin_job",
        summary="State, progress and result of a job",
        responses={200: JobSerializer} | error_responses(404, takes_body=False),
    )
    def get(self, request: Request, job_id: uuid.UUID) -> Response:
        return Response(JobSerializer(job_get(job_id)).data)


class JobCancelView(ApiView):
    """Stop a job."""

    required_scope = Scope.ADMIN

    @extend_schema(
        operation_id="admin_job_cancel",
        summary="Cancel a waiting job, or ask a running one to stop",
        request=None,
        responses={200: JobSerializer} | error_responses(404, 409, takes_body=False),
    )
    def post(self, request: Request, job_id: uuid.UUID) -> Response:
        job = jobs.cancel(job_get(job_id), actor=caller_of(request).name)
        return Response(JobSerializer(job).data)


def job_get(job_id: uuid.UUID) -> Job:
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job
