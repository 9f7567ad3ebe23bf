"""`fsck` finds nothing in a sound installation, and names each thing that is broken in another."""

import json
import os
import uuid
from datetime import timedelta
from io import StringIO
from pathlib import Path

import psutil
import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_settling")]


def findings(**options):
    from kalimtak import fsck

    return [f"{each.severity}: {each.where}: {each.what}" for each in fsck.find(**options)]


def folder_of(version):
    from registry import store

    return store.version_folder(version.classifier.slug, version.number)


def age(path, **how_long):
    """Let a file or folder look as if it was last written so long ago."""
    then = (timezone.now() - timedelta(**how_long)).timestamp()
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then))


def set_to(row, **values):
    """Change a row behind the back of every verb."""
    type(row).objects.filter(pk=row.pk).update(**values)


# Ways to break an installation: what each does to the world, and the words that name it ---------------------------


def flip_a_bit(world):
    path = folder_of(world.version) / "serving" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit_the_manifest(world):
    path = folder_of(world.version) / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 13', '"seed": 14'))


def damage_an_upload(world):
    from registry import store

    path = store.dataset_path(world.dataset.digest)
    path.write_bytes(path.read_bytes() + b" ")


def make_folder(world, name, **how_old):
    from django.conf import settings

    folder = Path(settings.KALIMTAK_MODELS_STORE) / name
    folder.mkdir(parents=True)
    age(folder, **how_old)


def work_folder(world, state, *inside, **values):
    from django.conf import settings

    from kalimtak.core.models import Job

    job = Job.objects.create(kind="train", key=uuid.uuid4().hex, state=state, **values)
    folder = Path(settings.KALIMTAK_VAR) / "runs" / str(job.pk)
    (folder / "attempt-1").mkdir(parents=True)
    for name in inside:
        (folder / name).write_text("{}")
    return folder


def trainer_without_a_job(world):
    folder = work_folder(world, "queued")
    me = psutil.Process()
    (folder / "trainer.json").write_text(json.dumps({"pid": me.pid, "started": me.create_time()}))


def spooled(suffix):
    """An answer that has no row."""
    from interactions import spool
    from interactions.services import spool_folder

    file = spool.SpoolFile(spool_folder())
    row = {"id": "0199", "created_at": "2026-03-01T00:00:00+00:00"}
    file.append(spool.line_of([{"rows": [row], "memo": None, "refused": "no such version"}]))
    file.close()
    file.path.rename(file.path.with_suffix(suffix))


def new_job(world, **values):
    from kalimtak.core.models import Job

    return Job.objects.create(**{"kind": "curate", "key": uuid.uuid4().hex, **values})


def running(world, **values):
    from django.conf import settings

    now = timezone.now()
    sound = {"lease_until": now, "owner": f"{settings.KALIMTAK_HOST}:{os.getpid()}", "started_at": now}
    return new_job(world, **{"state": "running", "attempt": 1, "token": 1, **sound, **values})


def died_on_this_host(world):
    from django.conf import settings

    running(world, owner=f"{settings.KALIMTAK_HOST}:999999999", lease_until=timezone.now() - timedelta(minutes=3))


def waiting_for_long(world):
    set_to(new_job(world, cluster="gpu", kind="train"), created_at=timezone.now() - timedelta(hours=1))


def other_classifier(world):
    from registry.models import Classifier

    return Classifier.objects.create(slug="mood", name="Mood", family="classic", labels=["joy"], input_fields=["text"])


def other_version(world):
    """A registered version of another classifier, whose folder is in order."""
    from registry import store
    from registry.services import version_register
    from tests.care.conftest import seal

    mood = other_classifier(world)
    mood.labels = []
    mood.save()
    staging = store.staging_folder(uuid.uuid4(), 1)
    seal(staging, mood, world.run.snapshot)
    return version_register(mood, staging, parent=None, actor="olga")


def second_in_production(world):
    from registry.models import Deployment

    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX one_live_production_per_classifier")
    Deployment.objects.create(classifier=world.emotion, version=world.first)


def canaries_for_more_than_everybody(world):
    from registry.models import Deployment

    for role in ("canary", "split"):
        Deployment.objects.create(classifier=world.emotion, version=world.first, role=role, share=60)


def item(world):
    return world.dataset.items.filter(split="train").first()


def same_text_with_another_label(world):
    twin = item(world)
    twin.pk, twin.label = None, next(label for label in world.emotion.labels if label != twin.label)
    twin.save()


def lose_a_snapshot_row(world):
    world.run.snapshot.rows.filter(split="train").first().delete()


def learn_a_golden_text(world):
    rows = world.run.snapshot.rows
    set_to(rows.filter(split="train").first(), content_hash=rows.filter(split="test").first().content_hash)


def add_band(item):
    from training.models import DuplicateBand

    DuplicateBand.objects.create(item=item, key=1)


def lose_a_golden_row(world):
    row = world.run.snapshot.rows.filter(split="test").first()
    set_to(row, content_hash="e" * 64)


def forget_an_interaction(world):
    from interactions.models import RequestMemo

    memo = RequestMemo.objects.get()
    set_to(memo, response={"results": [{"interaction_id": str(uuid.uuid4())}]})


def change_the_audit_trail(world):
    from kalimtak.core.models import AuditEvent

    set_to(AuditEvent.objects.filter(action="version.deploy").first(), actor="nobody")


def approve_a_label_that_is_gone(world):
    set_to(world.emotion, labels=["joy", "fear"])


MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BREAKAGES = {
    # Artefacts and versions
    "a bit flipped": (flip_a_bit, "error: version emotion/2: serving/model.safetensors was altered"),
    "a file lost": (
        lambda w: (folder_of(w.version) / "serving" / "model.safetensors").unlink(),
        "error: version emotion/2: missing from the folder: serving/model.safetensors",
    ),
    "a file added": (
        lambda w: (folder_of(w.version) / "extra.txt").write_text("?"),
        "error: version emotion/2: not in the manifest: extra.txt",
    ),
    "a folder lost": (
        lambda w: folder_of(w.version).rename(folder_of(w.version).parent / ".away"),
        "error: version emotion/2: the folder is missing",
    ),
    "another manifest": (edit_the_manifest, "error: version emotion/2: manifest.json is not the one"),
    "known damage": (
        lambda w: (flip_a_bit(w), set_to(w.version, status="corrupt"), set_to(w.live, ended_at=timezone.now())),
        "warning: version emotion/2: marked as corrupt; serving/model.safetensors was altered",
    ),
    "damage that is gone": (
        lambda w: set_to(w.first, status="corrupt", problems=["lost"]),
        "warning: version emotion/1: marked as corrupt (lost), though",
    ),
    "row unlike manifest": (
        lambda w: set_to(w.version, seed=99),
        "error: version emotion/2: its row and its manifest differ in seed",
    ),
    "folder without row": (lambda w: make_folder(w, "emotion/3"), "error: store emotion/3: a folder without a version"),
    "stranger in the store": (lambda w: make_folder(w, "emotion/drafts"), "warning: store emotion/drafts: does not"),
    "staging left behind": (
        lambda w: make_folder(w, f"_staging/{uuid.uuid4()}-1", hours=2),
        "left behind by a crash; not written to for 2.0 h",
    ),
    "parent of another classifier": (
        lambda w: set_to(w.version, parent=other_version(w)),
        "error: version emotion/2: its parent is a version of another",
    ),
    "baseline of another classifier": (
        lambda w: set_to(w.version.evaluations.first(), baseline=other_version(w)),
        "its baseline is a version of another classifier",
    ),
    "unknown status": (lambda w: set_to(w.first, status="fine"), "1 with the unknown status 'fine'"),
    "classifier twice a label": (
        lambda w: set_to(w.emotion, labels=["joy", "joy", "sadness"]),
        "error: classifier emotion: its labels name one thing twice",
    ),
    "classifier without fields": (lambda w: set_to(other_classifier(w), input_fields=[]), "it reads no input field"),
    "fields no names": (lambda w: set_to(other_classifier(w), input_fields=[" "]), "its input fields are no list"),
    "odd policy": (lambda w: set_to(w.emotion, policy={"gates": 1}), "its configuration cannot be read"),
    # Deployments
    "unverified answers": (lambda w: set_to(w.version, status="archived"), "emotion/2 answers as production and is"),
    "deployed across": (lambda w: set_to(w.live, classifier=other_classifier(w)), "its version is one of another"),
    "two in production": (second_in_production, "error: classifier emotion: 2 versions are in production at once"),
    "overlapping": (second_in_production, "of the same classifier had not ended when it began"),
    "missing rule": (
        second_in_production,
        "error: table registry_deployment: its constraint one_live_production_per_classifier is missing",
    ),
    "shares": (canaries_for_more_than_everybody, "its canaries and splits take 120 percent"),
    "share of one": (lambda w: set_to(w.live, share=0), "its share is 0 percent"),
    "forced without reason": (lambda w: set_to(w.live, forced=True), "against the gate without a reason"),
    # Jobs
    "end missing": (lambda w: set_to(w.job, finished_at=None), "it is succeeded without a time of its end"),
    "lease after the end": (lambda w: set_to(w.job, lease_until=timezone.now()), "it is succeeded and still holds a"),
    "slot while waiting": (lambda w: new_job(w, slot="here:cpu"), "it is queued and still holds a slot"),
    "result before the end": (lambda w: new_job(w, result={}), "it is queued and has a result"),
    "failed in silence": (
        lambda w: new_job(w, state="failed", finished_at=timezone.now()),
        "it is failed without saying why",
    ),
    "successful error": (lambda w: set_to(w.job, error="no"), "it succeeded with an error"),
    "running without lease": (lambda w: running(w, lease_until=None), "it is running without lease_until"),
    "running without slot": (lambda w: running(w, cluster="training"), "in the slot ''"),
    "too many attempts": (lambda w: new_job(w, attempt=4), "it had 4 attempts of at most 3"),
    "progress": (lambda w: new_job(w, progress=1.5), "its progress is 1.5"),
    "unknown state": (lambda w: new_job(w, state="asleep"), "1 with the unknown state 'asleep'"),
    "unknown kind": (lambda w: new_job(w, kind="dream"), "warning: jobs: 1 of the unknown kind 'dream' wait"),
    "lease long over": (
        lambda w: running(w, lease_until=timezone.now() - 5 * MINUTE),
        "its lease ran out and nobody takes it back",
    ),
    "process gone": (died_on_this_host, "warning: job"),
    "nobody takes it up": (waiting_for_long, "warning: queue gpu: 1 jobs have waited for over 15 minutes"),
    # Keys and the audit trail
    "scope": (lambda w: set_to(w.key, scopes=["everything"]), "its scopes ['everything'] do not exist"),
    "secret": (lambda w: set_to(w.key, secret_hash="open"), "it holds no SHA-256 of its secret"),
    "rate": (lambda w: set_to(w.key, rate="often"), "its rate 'often' cannot be read"),
    "audit trail": (change_the_audit_trail, "error: audit trail: Event"),
    # Answers and feedback
    "answered by a stranger": (
        lambda w: set_to(w.interaction, classifier=other_classifier(w)),
        "the version that answered is one of another classifier",
    ),
    "other deployment": (lambda w: set_to(w.interaction, version=w.first), "the deployment it names is one of another"),
    "confidence": (lambda w: set_to(w.interaction, confidence=7), "with confidence 7"),
    "input": (lambda w: set_to(w.interaction, fields=["text"]), "its input is not one text per field"),
    "review": (lambda w: set_to(w.interaction, reviewed_label="joy"), "or has a reviewed label without a time"),
    "unknown source": (lambda w: set_to(w.interaction, source="luck"), "1 with the unknown source 'luck'"),
    "mirror": (lambda w: set_to(w.interaction, rating=5), "its rating and correction are not its newest feedback's"),
    "mirror of nothing": (lambda w: w.feedback.delete(), "its rating and correction are not its newest feedback's"),
    "empty feedback": (lambda w: set_to(w.feedback, rating=None, correct_label=""), "it neither rates nor corrects"),
    "early curation": (lambda w: set_to(w.feedback, curated_at=timezone.now() + HOUR), "in a state it never had"),
    "no source": (lambda w: set_to(w.feedback, source=""), "nobody is named as its source"),
    "remembered": (forget_an_interaction, "1 of its answers have no interaction"),
    # Data sets and items
    "upload lost": (lambda w: set_to(w.dataset, digest="f" * 64), "is not in the store"),
    "upload damaged": (damage_an_upload, "was altered"),
    "loaded from nothing": (lambda w: set_to(w.dataset, digest=""), "loaded without a file"),
    "upload of nobody": (
        lambda w: make_folder(w, f"_datasets/{'0' * 64}", hours=2),
        "an upload that no data set names",
    ),
    "stuck": (
        lambda w: set_to(w.dataset, state="loading", created_at=timezone.now() - 8 * HOUR),
        "it is loading, but no job does it",
    ),
    "stuck after its job": (lambda w: set_to(w.dataset, state="loading", job=w.job), "but its job is succeeded"),
    "items lost": (lambda w: item(w).delete(), "60 items were loaded, 59 are there"),
    "unknown role": (lambda w: set_to(w.dataset, role="toy"), "1 with the unknown role 'toy'"),
    "label gone": (approve_a_label_that_is_gone, "30 approved items are labelled 'sadness'"),
    "unknown split": (lambda w: set_to(item(w), split="all"), "1 with the unknown split 'all'"),
    "item's input": (lambda w: set_to(item(w), fields={"question": "?"}), "its input is not one text for each of"),
    "content hash": (lambda w: set_to(item(w), content_hash="0" * 64), "its content hash is not that of its texts"),
    "band": (lambda w: add_band(item(w)), "it was not compared, and has near-duplicate bands"),
    "cluster": (lambda w: set_to(item(w), compared=True), "it was compared, and has no near-duplicate cluster"),
    "bands lost": (
        lambda w: set_to(item(w), compared=True, cluster=1),
        "it was compared, and its near-duplicates are not found",
    ),
    "band of another": (
        lambda w: (set_to(item(w), compared=True, cluster=1), add_band(item(w))),
        "it is found by the near-duplicate bands of another text",
    ),
    "weight": (lambda w: set_to(item(w), weight=0), "its weight is 0.0, its quality 1.0"),
    "item's data set": (lambda w: set_to(w.dataset, classifier=other_classifier(w)), "its data set is another"),
    "item's interaction": (
        lambda w: set_to(item(w), interaction=w.interaction, classifier=other_classifier(w)),
        "its source interaction is another classifier's",
    ),
    "two labels": (same_text_with_another_label, "is approved with 2 labels"),
    # The spool
    "spooled": (lambda w: spooled(".spool"), "warning: spool/"),
    "spooled answers": (lambda w: spooled(".spool"), "1 answers that were given wait to be recorded"),
    "refused": (lambda w: spooled(".refused"), "refused 1 answers that were given: no such version"),
    "damaged": (lambda w: spooled(".damaged"), "was damaged on the disk"),
    # Snapshots and runs
    "snapshot's rows": (lose_a_snapshot_row, "its rows are not those of its digest"),
    "snapshot's counts": (lose_a_snapshot_row, "rows and states 60"),
    "golden rows": (lose_a_golden_row, "its golden rows are not those of its golden digest"),
    "leak": (learn_a_golden_text, "1 texts are both learnt from and measured on"),
    "version lost": (lambda w: set_to(w.run, version=None), "its job succeeded and it has no version"),
    "run's classifier": (lambda w: set_to(w.run, classifier=other_classifier(w)), "its snapshot is another"),
    "run's version": (lambda w: set_to(w.run, version=other_version(w)), "a version of another classifier"),
    "run's kind": (lambda w: set_to(w.job, kind="curate"), "its job is one of kind curate"),
    "not scored": (lambda w: w.version.evaluations.all().delete(), "was not scored on the golden set of the run"),
    "other snapshot": (lambda w: set_to(w.version, snapshot_digest="a" * 64), "names another snapshot than the run"),
    "other result": (lambda w: set_to(w.job, result={"version": "emotion/9"}), "its job names emotion/9"),
    "history": (lambda w: set_to(w.run, history=[{"step": 2}, {"step": 1}]), "goes back and forth"),
    "no run": (lambda w: set_to(new_job(w), kind="train", state="succeeded"), "a training succeeded without a run"),
    "finished folder": (
        lambda w: work_folder(w, "succeeded", finished_at=timezone.now()),
        "the folder of a run whose job is succeeded",
    ),
    "texts left": (
        lambda w: work_folder(w, "failed", "attempt-1/train.jsonl", finished_at=timezone.now(), error="no"),
        "texts of a run whose job is failed",
    ),
    "trainer alone": (trainer_without_a_job, "a trainer runs and its job is queued"),
}


def test_a_sound_installation_has_no_findings(world):
    assert findings() == []


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_named(world, name):
    break_it, words = BREAKAGES[name]
    break_it(world)
    found = findings()
    assert any(words in line for line in found), "\n".join(found)


def test_a_quick_look_sees_sizes_but_reads_no_contents(world):
    flip_a_bit(world)
    assert findings(quick=True) == []
    path = folder_of(world.version) / "serving" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "error: version emotion/2: serving/model.safetensors has" in findings(quick=True)[0]


def test_every_check_breaks_off_alone(world, monkeypatch):
    from kalimtak import fsck

    def rows_that_cannot_be(look):
        raise KeyError("split")
        yield

    flip_a_bit(world)
    found = findings(checks=(rows_that_cannot_be, *fsck.CHECKS))
    assert found[0] == "error: rows that cannot be: this check broke off: KeyError: 'split'"
    assert len(found) == 2


def test_what_is_gone_at_the_second_look_is_no_finding(world):
    from kalimtak.core.findings import error

    looks = []

    def once(look):
        looks.append(look)
        if len(looks) == 1:
            yield error("here", "in the middle of it", "Wait.")

    assert findings(checks=(once,)) == []
    assert len(looks) == 2


def test_work_in_progress_is_no_finding(world):
    """A job at work with its staging and work folder, an upload being written, a data set being loaded."""
    from django.conf import settings

    from registry import store

    job = running(world, kind="train", slot=f"{settings.KALIMTAK_HOST}:cpu", cluster="training")
    age(store.staging_folder(job.pk, job.token), hours=3)
    work = Path(settings.KALIMTAK_VAR) / "runs" / str(job.pk) / "attempt-1"
    work.mkdir(parents=True)
    (work / "train.jsonl").write_text("{}")
    (store.root() / "_staging" / f"upload-{uuid.uuid4().hex}").write_bytes(b"half")
    (store.root() / "_datasets" / ("0" * 64)).write_bytes(b"its row comes in a moment")
    set_to(world.dataset, state="loading", job=job)
    new_job(world)
    new_job(world, not_before=timezone.now() + HOUR)
    assert findings() == []


def test_the_command_says_clean_and_exits_with_0(world):
    out = StringIO()
    call_command("fsck", stdout=out)
    assert out.getvalue().startswith("Clean: ")


def test_the_command_lists_findings_with_remedies_and_exits_with_1(world):
    flip_a_bit(world)
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("fsck", stdout=out)
    assert ended.value.code == 1
    severity, where, what, remedy = out.getvalue().splitlines()[1].split("\t")
    assert (severity, where) == ("error", "version emotion/2")
    assert "was altered" in what
    assert "verify_model emotion/2" in remedy


def test_the_command_writes_json(world):
    flip_a_bit(world)
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("fsck", "--json", stdout=out)
    body = json.loads(out.getvalue())
    assert body["clean"] is False
    assert body["findings"][0].keys() == {"severity", "where", "what", "remedy"}


def test_audit_verify_walks_the_chain(world):
    from kalimtak.core.models import AuditEvent

    out = StringIO()
    call_command("audit_verify", stdout=out)
    assert f"whole: {AuditEvent.objects.count()} events" in out.getvalue()
    change_the_audit_trail(world)
    with pytest.raises(SystemExit) as ended:
        call_command("audit_verify", stdout=out)
    assert ended.value.code == 1
    assert "its content was changed" in out.getvalue()
