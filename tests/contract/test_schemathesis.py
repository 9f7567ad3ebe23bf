"""Thousands of requests made from `openapi.yaml`, good and bad, against the application as gunicorn runs it.

Whatever comes: no fault of ours, an answer that the description knows, of the type and shape it promises, and every
error in the one error shape. `KALIMTAK_TEST_CASES=1000` asks so many, at random, of each operation.
"""

import os
from collections import Counter

import hypothesis
import pytest
import schemathesis
import yaml
from django.conf import settings as django_settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kalimtak.wsgi import application
from registry.services import version_deploy
from tests.contract.endpoints import error_in

CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)
CASES = int(os.environ.get("KALIMTAK_TEST_CASES", "0"))
# The second time, on PostgreSQL, half as many will do.
PER_VARIANT = CASES // 3 or (50 if os.environ.get("KALIMTAK_TEST_DATABASE_URL") else 100)
UNLIKE = {"GET /api/models", "GET /healthz"}  # they take nothing that could be wrong


def description():
    return yaml.safe_load((django_settings.BASE_DIR / "openapi.yaml").read_text(encoding="utf-8"))


OPERATIONS = [f"{method.upper()} {path}" for path, item in description()["paths"].items() for method in item]


# What exists here, for requests that are meant to get through.
KNOWN = {
    "classifier": ["emotion", "clarity", "silent"],
    "route": ["emotion", "silent"],
    "version": ["emotion/1", "emotion/2", "emotion/3"],
    "correct_label": ["joy", "sadness"],
    "url": ["https://data.example.org/emotion.csv"],
    "to": [1, 2],
}
VARIANTS = {
    "known": GenerationMode.POSITIVE,  # as described, and names things that exist
    "described": GenerationMode.POSITIVE,
    "undescribed": GenerationMode.NEGATIVE,
}


def naming_what_exists(raw, known):
    """The description, its requests narrowed to values that exist."""
    for component in (body for name, body in raw["components"]["schemas"].items() if name.endswith("Request")):
        for field in known.keys() & component.get("properties", {}).keys():
            component["properties"][field] = {"enum": known[field]}
        if "texts" in component.get("properties", {}):  # which cannot be given together with `text`
            del component["properties"]["texts"], component["properties"]["items"]
            component |= {"additionalProperties": False, "required": ["text"]}
    for operation in (operation for item in raw["paths"].values() for operation in item.values()):
        for parameter in operation.get("parameters", []):
            parameter["schema"] = {"enum": known[parameter["name"]]}
    return raw


def operation_of(label, raw):
    schema = schemathesis.openapi.from_dict(raw)
    schema.app = application
    schema.config.generation.update(with_security_parameters=False)
    return next(found.ok() for found in schema.get_all_operations() if found.ok().label == label)


ASKED = [
    (label, variant) for label in OPERATIONS for variant in VARIANTS if label not in UNLIKE or variant != "undescribed"
]


@pytest.mark.parametrize(("label", "variant"), ASKED)
def test_whatever_is_asked_gets_an_answer_that_was_described(installation, label, variant):
    known = KNOWN | {"interaction_id": [str(installation.interaction.pk)], "job_id": [str(installation.job.pk)]}
    operation = operation_of(label, naming_what_exists(description(), known) if variant == "known" else description())
    if "rollback" in label:
        version_deploy(installation.emotion.versions.get(number=2), actor="dina")
    headers = {"Authorization": f"Bearer {installation.carla.plain}"}
    statuses = Counter()

    def check(case):
        response = case.call(headers=headers)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=list(CHECKS))
        if response.status_code >= 400:
            named = {name: values[0] for name, values in response.headers.items()}
            status, code = error_in(response.status_code, named, response.content)
            assert status < 500 or (status, code) == (503, "no_model"), response.content

    run(operation, VARIANTS[variant], check)
    if variant == "known":
        assert min(statuses) < 300
    elif label not in UNLIKE:
        assert sum(statuses.values()) >= PER_VARIANT


def run(operation, mode, check):
    """First what the boundaries of the description suggest, then what hypothesis makes of it."""
    generation = operation.schema.config.generation
    for case in operation.schema.iter_coverage_cases(operation, generation_modes=[mode], generation_config=generation):
        check(case)
    tries = hypothesis.settings(
        max_examples=PER_VARIANT,
        deadline=None,
        database=None,
        derandomize=not CASES,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    tries(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(check))()
