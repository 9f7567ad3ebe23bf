"""A Django process beside the servers: asks the database and does what an operator would do at a terminal."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import json, shutil, sys, uuid
import django
django.setup()
from django.db import connections
from interactions.models import UserInteraction
from kalimtak import fsck
from kalimtak.core import jobs
from kalimtak.core.models import Job
from kalimtak.core.reaper import reap
from registry import store
from registry.models import Deployment, ModelVersion
from registry.services import classifier_get, version_deploy, version_register, version_rollback, version_verify

def count():
    return UserInteraction.objects.count()

def rows():
    return [str(key) for key in UserInteraction.objects.values_list("pk", flat=True).iterator()]

def newest(most):
    # [row, number of the version that answered], the newest ones first.
    found = UserInteraction.objects.order_by("-pk").values_list("pk", "version__number")[:most]
    return [[str(key), number] for key, number in found]

def live(slug):
    return Deployment.objects.live().get(version__classifier__slug=slug, role="production").version.number

def second_version(slug):
    # The live model once more, under the next number; returns that number.
    classifier = classifier_get(slug)
    first = classifier.versions.get(number=live(slug))
    staging = store.staging_folder(uuid.uuid4(), 1)
    store.discard(staging)
    shutil.copytree(store.version_folder(slug, first.number), staging)
    second = version_register(classifier, staging, parent=first, actor="bench")
    assert not version_verify(second)
    return second.number

def deploy(slug, number):
    version = ModelVersion.objects.get(classifier__slug=slug, number=number)
    version_deploy(version, actor="bench", force=True, may_force=True, reason="bench")

def rollback(slug):
    version_rollback(classifier_get(slug), actor="bench", reason="bench")

for line in sys.stdin:
    try:
        said = {"value": eval(json.loads(line))}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    connections.close_all()
    print(json.dumps(said, default=str), flush=True)
"""


class Console:
    """Evaluates Python expressions in that process; `rows()`, `deploy("emotion", 2)` and the like are there."""

    def __init__(self, environment: dict[str, str]) -> None:
        settings = environment | {"DJANGO_SETTINGS_MODULE": "kalimtak.settings"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=settings, cwd=ROOT, **pipes)

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def ask(self, expression: str) -> Any:
        """Its value, which JSON can carry. Raises `RuntimeError` with what it raised."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(expression) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if "error" in said:
            raise RuntimeError(f"{expression}: {said['error']}")
        return said["value"]
