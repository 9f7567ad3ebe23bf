"""Backup and restore: the drill on a working installation, and everything that is refused without changing anything."""

import json
import os
import shutil
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest
import requests

from tests.installation import Installation
from tests.services import wait_until

CRASHED_JOB = """
from kalimtak.core import jobs
from kalimtak.core.models import Job
job = jobs.enqueue("curate", {}, actor="olga", ring=False)
jobs.claim(job.pk)
"""
TEXT = "rain and cheese"
FACTS = f"""
import json
from inference import create_classifier
from interactions.models import Feedback, UserInteraction
from interactions.services import pseudonym_of
from kalimtak.core.models import Job
job = Job.objects.get(kind="curate")
answers = UserInteraction.objects.count(), Feedback.objects.count()
scores = create_classifier("topic").classify({TEXT!r})["scores"]
print(json.dumps([[job.state, job.attempt, job.token, job.slot], answers, [scores, pseudonym_of("ann")]]))
"""
SPOOLED = """
from interactions.models import UserInteraction
from interactions.services import NewAnswer, NewInteraction
from interactions.spooling import answers_spool
row = UserInteraction.objects.first()
answered = "food", 0.6, {"food": 0.6, "weather": 0.4}, 0.5, False
row = NewInteraction(row.classifier_id, row.version_id, row.deployment_id, row.fields, *answered)
answers_spool([NewAnswer([row])])
"""
IDLE = "from django.db import connection; connection.ensure_connection(); import time; time.sleep(60)"


class Visitors:
    """Somebody who asks and rates without a pause, until `stop`; the answers they got."""

    def __init__(self, url):
        self.url, self.answers, self._stopped = url, [], threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def _visit(self):
        while not self._stopped.is_set():
            answer = requests.post(f"{self.url}/api/predict", json={"text": TEXT}, timeout=30)
            if answer.ok:
                self.answers.append(answer.json())
                given = {"interaction_id": answer.json()["interaction_id"], "rating": 5}
                requests.post(f"{self.url}/api/feedback", json=given, timeout=30)

    def stop(self):
        self._stopped.set()
        self._thread.join(60)
        return self.answers


def facts_of(installation):
    """The crashed job, how many answers and feedbacks there are, and what must be the same ever after."""
    return json.loads(installation.python(FACTS))


@pytest.fixture(scope="module")
def drill(tmp_path_factory):
    """An installation at work, backed up under load, then gone."""
    folder = tmp_path_factory.mktemp("drill")
    installation = Installation(folder / "old", WEB_CONCURRENCY="1").set_up()
    try:
        installation.manage("import_dataset", str(installation.folder / "items.csv"), "--classifier", "topic")
        installation.manage("train", "topic", "--deploy")
        installation.python(CRASHED_JOB)
        installation.start_web()
        visitors = Visitors(installation.url)
        wait_until(lambda: visitors.answers, what="a first answer")
        before = len(visitors.answers)
        said = installation.manage("backup", str(folder / "backup"))
        after = len(visitors.stop())
        job, _, lasting = facts_of(installation)
        assert job[0] == "running"
        facts = {"before": before, "after": after, "said": said, "lasting": lasting}
        yield installation, folder / "backup", facts
    finally:
        installation.close()


@pytest.mark.postgres
def test_the_drill(drill, tmp_path):
    _, backup, facts = drill
    new = Installation(tmp_path / "new")
    try:
        said = new.manage("restore", str(backup))
        assert "1 running jobs went back to the queue. fsck is clean." in said
        job, (interactions, feedback), lasting = facts_of(new)
        assert job == ["queued", 0, 2, ""]
        assert facts["before"] <= interactions <= facts["after"] + 1
        assert interactions - 1 <= feedback <= interactions
        assert lasting == facts["lasting"]
        assert oct((new.folder / "var" / "keys" / "subject_key").stat().st_mode)[-3:] == "600"
        restored_again_over_a_full_one(new, backup, tmp_path)
    finally:
        new.close()


def restored_again_over_a_full_one(new, backup, tmp_path):
    """Refused without --force; with it the old is aside, and what was restored can itself be backed up and restored."""
    assert "not empty. With --force" in new.manage("restore", str(backup), code=1)
    new.start("shell", "--command", IDLE)
    wait_until(lambda: "stop all processes" in new.manage("restore", str(backup), code=None), what="company")
    new.kill_all()
    said = new.manage("restore", str(backup), "--force")
    assert "fsck is clean" in said
    aside = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("What was there before")]
    assert len(aside) == 3
    assert any((Path(place) / "topic" / "1" / "manifest.json").is_file() for place in aside)
    new.python(SPOOLED)
    new.manage("backup", str(tmp_path / "second"))
    said = new.manage("restore", str(tmp_path / "second"), "--force")
    assert "1 answers that waited in the spool were recorded" in said
    assert "fsck is clean" in said


@pytest.mark.postgres
def test_a_backup_is_private_complete_and_says_what_it_is(drill):
    _, backup, facts = drill
    assert "keep it safe" in facts["said"]
    assert not backup.with_name("backup.partial").exists()
    manifest = json.loads((backup / "manifest.json").read_text())
    held = {path.relative_to(backup).as_posix() for path in backup.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == held
    assert {"store/topic/1/manifest.json", "var/keys/subject_key"} <= held
    assert manifest["engine"] in ("sqlite", "postgresql")
    assert "training.0001_initial" in manifest["migrations"]
    assert {path.stat().st_mode & 0o077 for path in [backup, *backup.rglob("*")]} == {0}


@pytest.mark.postgres
def test_what_is_there_already_is_not_overwritten(drill, tmp_path):
    installation, backup, _ = drill
    assert f"{backup} exists already" in installation.manage("backup", str(backup), code=1)
    (tmp_path / "new.partial").mkdir()
    assert "left by a backup that was broken off" in installation.manage("backup", str(tmp_path / "new"), code=1)
    assert not any((tmp_path / "new.partial").iterdir())
    assert "is not a folder" in installation.manage("backup", str(tmp_path / "none" / "new"), code=1)


@pytest.mark.postgres
def test_a_disk_without_room_is_said_before_anything_is_written(drill, tmp_path):
    installation = drill[0]
    small = tmp_path / "small"
    small.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small]).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        assert "for this backup; free some space" in installation.manage("backup", str(small / "new"), code=1)
        assert not any(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("kind", ["a file that is no database", "a server that is away"])
def test_a_database_that_cannot_be_used_is_said_in_one_line(tmp_path, kind):
    (tmp_path / "garbage").write_bytes(b"no database at all" * 100)
    away = kind == "a server that is away"
    database = "postgres://kalimtak@127.0.0.1:1/none" if away else f"sqlite:///{tmp_path / 'garbage'}"
    installation = Installation(tmp_path / "installation", database=database)
    said = installation.manage("backup", str(tmp_path / "new"), code=1)
    assert said.startswith("CommandError: The database cannot be used: ")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.glob("new*"))


# Damage ------------------------------------------------------------------------------------------------------------


def change_manifest(backup, **changes):
    """Another manifest that is right in itself."""
    from dataclasses import replace

    from kalimtak.backup.contents import Contents

    replace(Contents.read(backup), **changes).write(backup)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def weights_of(backup):
    return next(iter(sorted((backup / "store" / "topic" / "1" / "serving").glob("*.safetensors"))))


def database_of(backup):
    return next(backup.glob("database.*"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


OTHER_ENGINE = {"sqlite": "postgresql", "postgresql": "sqlite"}
DAMAGES = {
    "a bit flipped in a model": (lambda b: flip(weights_of(b)), "was altered"),
    "a bit flipped in the database": (lambda b: flip(database_of(b)), "was altered"),
    "a truncated database": (lambda b: truncate(database_of(b)), "bytes, the manifest says"),
    "a missing file": (lambda b: weights_of(b).unlink(), "missing from the folder"),
    "an added file": (lambda b: (b / "store" / "more").write_text(""), "not in the manifest: store/more"),
    "a link": (lambda b: (b / "store" / "link").symlink_to("/etc/passwd"), "is a link"),
    "a bit flipped in the manifest": (lambda b: flip(b / "manifest.json"), "is damaged: manifest.json"),
    "a truncated manifest": (lambda b: (b / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "is no backup"),
    "another format": (lambda b: change_manifest(b, format=2), "has format 2; this release reads 1"),
    "odd contents": (lambda b: change_manifest(b, files=[]), "manifest.json was altered"),
    "a newer release": (
        lambda b: change_manifest(b, migrations=["training.0001_initial", "training.0999_later"]),
        "is newer than this code, which lacks training.0999_later",
    ),
    "another kind of database": (
        lambda b: change_manifest(b, engine=OTHER_ENGINE[json.loads((b / "manifest.json").read_text())["engine"]]),
        "set DATABASE_URL to one of",
    ),
}


@pytest.mark.postgres
@pytest.mark.parametrize("name", DAMAGES)
def test_a_backup_that_is_damaged_or_does_not_fit_is_refused_and_changes_nothing(drill, settings, tmp_path, name):
    from kalimtak.backup import backup_restore
    from kalimtak.core.errors import InvalidInput

    backup = tmp_path / "backup"
    shutil.copytree(drill[1], backup)
    settings.KALIMTAK_VAR, settings.KALIMTAK_MODELS_STORE = tmp_path / "var", tmp_path / "store"
    damage, words = DAMAGES[name]
    damage(backup)
    with pytest.raises(InvalidInput) as refused:
        backup_restore(backup, force=True, actor="olga")
    assert words in refused.value.message
    assert not (tmp_path / "var").exists() and not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("server", "known", "chosen"),
    [
        (15, [15, 17], 15),  # the server's own, though a newer one is there
        (15, [16], 16),
        (17, [15, 18], 18),
        (15, [17], None),  # its pg_restore says what the server does not know
        (15, [9, 14], None),
        (15, [], None),
    ],
)
def test_the_programs_used_are_those_that_the_server_understands(server, known, chosen):
    from kalimtak.backup.databases import program_for
    from kalimtak.core.errors import Unavailable

    programs = {major: f"/opt/{major}/pg_dump" for major in known}
    if chosen:
        assert program_for("pg_dump", server, programs) == f"/opt/{chosen}/pg_dump"
    else:
        with pytest.raises(Unavailable, match="install the client programs of the server's version"):
            program_for("pg_dump", server, programs)


def test_programs_are_told_apart_by_what_they_say(tmp_path, monkeypatch):
    from kalimtak.backup.databases import programs

    program = tmp_path / "pg_other"
    program.write_text("#!/bin/sh\necho 'pg_other (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs("pg_other") == {15: str(program)}
    assert programs("pg_nothing") == {}


def test_a_sqlite_database_behind_a_link_is_seen_in_use(settings, tmp_path, monkeypatch):
    """By its true path, which is how others' open files are named, and by the lock of whoever cannot be seen."""
    from django.db import connection

    from kalimtak.backup.databases import Sqlite
    from kalimtak.core.errors import Conflict
    from kalimtak.core.sqlite import Database

    (tmp_path / "disk").mkdir()
    (tmp_path / "var").symlink_to(tmp_path / "disk")
    monkeypatch.setitem(connection.settings_dict, "NAME", str(tmp_path / "var" / "kalimtak.sqlite3"))
    assert Sqlite().path == tmp_path / "disk" / "kalimtak.sqlite3"
    with closing(Database.connect(tmp_path / "disk" / "kalimtak.sqlite3")) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE kept (x)")
        other.execute("SELECT * FROM kept").fetchall()
        with pytest.raises(Conflict, match="in use"):
            Sqlite()._refuse_hidden_company()
    Sqlite()._refuse_hidden_company()


def test_a_demos_credentials_do_not_open_what_is_restored(settings, tmp_path):
    """A `demo.json` that stayed would let visitors ask without a key."""
    from kalimtak.backup.restore import _exchange_private

    settings.KALIMTAK_VAR = tmp_path / "var"
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "demo.json").write_text("{}")
    (tmp_path / "backup" / "keys").mkdir(parents=True)
    (tmp_path / "backup" / "keys" / "subject_key").write_text("theirs")
    (aside,) = _exchange_private(tmp_path / "backup", "20260105")
    assert not (tmp_path / "var" / "demo.json").exists()
    assert (Path(aside) / "demo.json").exists()
    assert (tmp_path / "var" / "keys" / "subject_key").read_text() == "theirs"
