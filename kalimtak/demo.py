"""The demo: sample data, a trained and deployed version of each demo classifier, demo staff and a demo key."""

import json
import secrets
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management.base import CommandError

from kalimtak.core.auth import key_create
from kalimtak.core.commands import Report
from kalimtak.core.errors import KalimtakError
from kalimtak.core.foreground import CANCELLED, run_here
from kalimtak.core.models import ApiKey, Job, Scope
from kalimtak.core.reaper import reap
from kalimtak.installation import write_private
from registry.models import Classifier
from registry.services import classifier_get, live_version
from training.models import Dataset, TrainingRun
from training.samples import SETS, generate
from training.services import dataset_add, dataset_load, run_resume, run_start

ACTOR = "quickstart"
ROWS = {"classic": 4_000, "encoder": 2_000}  # enough to be sensible, few enough for all five within three minutes
SEED = 7
STAFF = {"olga": "admin", "rami": "annotator", "tala": "trainer", "dina": "deployer", "vera": "viewer"}


def classifier_ready(slug: str, report: Report) -> str:
    """Give classifier `slug` a live version, trained on the sample set; what was done, in a few words.

    Does nothing where one is live. Raises `KalimtakError` with the run's reason where training failed.
    """
    classifier = classifier_get(slug)
    live = live_version(classifier)
    if live is not None:
        return f"{live} is live already"
    samples_load(classifier, report)
    run = _unfinished_run(classifier) or run_start(classifier, actor=ACTOR, then=TrainingRun.Then.DEPLOY, ring=False)
    job = run_here(run.job, report)
    live = live_version(classifier)
    if job.state == Job.State.CANCELLED:
        raise CommandError("Cancelled. The same command again goes on from the last checkpoint.", returncode=CANCELLED)
    if live is None:
        reason = job.error or (job.result or {}).get("deployment") or "its version was not deployed"
        raise KalimtakError(f"Training {slug} ended as {job.state}: {reason}")
    return f"{live} trained and deployed"


def _unfinished_run(classifier: Classifier) -> TrainingRun | None:
    """The run of a quickstart that was interrupted, which this one goes on with; after Ctrl-C from its checkpoints."""
    reap()
    last = TrainingRun.objects.filter(classifier=classifier).select_related("job").first()
    if last is None or last.job.actor != ACTOR or last.then != TrainingRun.Then.DEPLOY:
        return None
    if last.job.state == Job.State.CANCELLED and last.version_id is None:
        return run_resume(classifier, actor=ACTOR, ring=False)
    return None if last.job.is_finished else last


def samples_load(classifier: Classifier, report: Report) -> Dataset:
    """Load the classifier's sample set, once: the same rows again change nothing."""
    known = Dataset.objects.filter(classifier=classifier, origin=Dataset.Origin.SAMPLE).first()
    if known is not None:
        return known if known.state == Dataset.State.READY else dataset_load(known, progress=report)
    names = [*SETS[classifier.slug].input_fields, classifier.label_field]
    rows = [
        json.dumps(dict(zip(names, (*sample.fields, sample.label), strict=True)), ensure_ascii=False)
        for sample in generate(classifier.slug, ROWS.get(classifier.family, ROWS["encoder"]), seed=SEED)
    ]
    dataset = dataset_add(
        classifier,
        source=BytesIO("\n".join(rows).encode()),
        name=f"sample-{classifier.slug}.jsonl",
        options={},
        actor=ACTOR,
        origin=Dataset.Origin.SAMPLE,
    )
    return dataset_load(dataset, progress=report)


def staff_ensure() -> dict[str, Any]:
    """Demo staff with random passwords and an API key, written to `var/demo.json` (mode 0600); its content."""
    path = settings.KALIMTAK_VAR / "demo.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    passwords = dict(known.get("staff", {}))
    for name, role in STAFF.items():
        user, created = User.objects.get_or_create(username=name, defaults={"is_staff": True})
        if created or name not in passwords:
            passwords[name] = secrets.token_urlsafe(12)
            user.set_password(passwords[name])
            user.is_superuser = role == "admin"
            user.save()
        user.groups.set(Group.objects.filter(name=role))
    api_key = known.get("api_key", "")
    if not ApiKey.objects.filter(prefix=api_key.partition(".")[0], revoked_at=None).exists():
        _, api_key = key_create("demo", Scope.values, actor=ACTOR)
    content = {"admin": {"username": "olga", "password": passwords["olga"]}, "staff": passwords, "api_key": api_key}
    write_private(path, json.dumps(content, indent=2) + "\n")
    return content
