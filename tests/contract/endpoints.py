"""Every endpoint that a client may call: who may, what it takes, and exactly what it gives back."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.test import Client

RESULT = {
    "interaction_id",
    "classifier",
    "label",
    "confidence",
    "scores",
    "abstained",
    "threshold",
    "alternatives",
    "source",
    "model_version",
    "deployment",
    "flags",
    "latency_ms",
}
JOB = {
    "id",
    "kind",
    "state",
    "progress",
    "note",
    "result",
    "error",
    "attempt",
    "cancel_requested",
    "created_at",
    "started_at",
    "finished_at",
}
DEPLOYMENT = {"deployment", "version", "classifier", "role", "share", "started_at", "actor", "reason", "forced"}
STATISTICS = {
    "notes",
    "shares",
    "extracted",
    "duplicates",
    "filtered",
    "pii_redacted",
    "over_represented",
    "loaded",
    "approved",
    "for_review",
    "quarantined",
    "reasons",
}
HEALTH = {"status", "problems", "waiting_texts", "asked_seconds_ago", "spooled", "models"}


@dataclass(frozen=True)
class Endpoint:
    """`body` makes a good request's body from the installation (None: it takes none); `gives` are the answer's keys."""

    method: str
    path: str
    scope: str
    status: int
    gives: set[str]
    body: Callable[[Any], dict[str, Any]] | None = None

    def url(self, installation: Any) -> str:
        return self.path.format(job=installation.job.pk)

    def content(self, installation: Any) -> bytes:
        return json.dumps(self.body(installation)).encode() if self.body else b""


ENDPOINTS = (
    Endpoint("POST", "/api/predict", "predict", 200, RESULT, lambda given: {"text": "what a joy"}),
    Endpoint("POST", "/api/classify/emotion", "predict", 200, RESULT | {"label"}, lambda given: {"text": "anger"}),
    Endpoint(
        "POST",
        "/api/classify/clarity",
        "predict",
        200,
        RESULT | {"clarity_label"},
        lambda given: {"question": "Will you?", "context": "Ambivalent"},
    ),
    Endpoint("GET", "/api/models", "predict", 200, {"models"}),
    Endpoint(
        "POST",
        "/api/feedback",
        "feedback",
        201,
        {"feedback_id", "interaction_id", "status"},
        lambda given: {"interaction_id": str(given.interaction.pk), "rating": 4, "subject": "amal"},
    ),
    Endpoint(
        "POST",
        "/api/admin/load-dataset",
        "admin",
        202,
        {"job", "dataset"},
        lambda given: {"classifier": "emotion", "url": "https://data.example.org/emotion.csv"},
    ),
    Endpoint(
        "POST", "/api/admin/curate-training-data", "admin", 200, STATISTICS, lambda given: {"classifier": "emotion"}
    ),
    Endpoint("POST", "/api/admin/retrain", "admin", 202, {"job"}, lambda given: {"classifier": "emotion"}),
    Endpoint("GET", "/api/admin/jobs/{job}", "admin", 200, JOB),
    Endpoint("POST", "/api/admin/jobs/{job}/cancel", "admin", 200, JOB),
    Endpoint("POST", "/api/admin/deploy", "deploy", 201, DEPLOYMENT, lambda given: {"version": "emotion/2"}),
    Endpoint(
        "POST",
        "/api/admin/rollback",
        "deploy",
        201,
        DEPLOYMENT,
        lambda given: {"classifier": "emotion", "to": 1, "reason": "answers look odd"},
    ),
    Endpoint("GET", "/healthz", "read", 200, HEALTH),
)
WITH_BODY = tuple(endpoint for endpoint in ENDPOINTS if endpoint.body)
OPEN = ("/livez", "/readyz", "/api/schema", "/api/docs")  # nobody is asked who they are


def ask(
    endpoint: Endpoint,
    installation: Any,
    key: str = "",
    *,
    content: bytes | None = None,
    method: str = "",
    url: str = "",
    client: Client | None = None,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> HttpResponse:
    """Send the endpoint's good request, or one that differs from it in what is given."""
    given = {"Authorization": f"Bearer {key}"} if key else {}
    return (client or Client(raise_request_exception=False)).generic(
        method or endpoint.method,
        url or endpoint.url(installation),
        endpoint.content(installation) if content is None else content,
        content_type=content_type,
        headers=given | (headers or {}),
    )


def error_of(response: HttpResponse) -> tuple[int, str]:
    """Status and code of an error, once its shape was found to be the one shape."""
    headers = {name.lower(): value for name, value in response.items()}
    return error_in(response.status_code, headers, response.content)


def error_in(status: int, headers: Mapping[str, str], content: bytes) -> tuple[int, str]:
    """The same for an answer in its parts, with the names of its headers in lower case."""
    assert headers["content-type"].startswith("application/json"), headers["content-type"]
    body = json.loads(content)
    assert set(body) == {"error"}, body
    error = body["error"]
    assert {"code", "message"} <= set(error) <= {"code", "message", "fields"}, error
    assert error["code"] and isinstance(error["code"], str)
    assert error["message"] and isinstance(error["message"], str)
    for place, reasons in error.get("fields", {}).items():
        assert place and reasons and all(isinstance(reason, str) and reason for reason in reasons), error
    if status in (429, 503):
        assert int(headers["retry-after"]) > 0
    return status, error["code"]
