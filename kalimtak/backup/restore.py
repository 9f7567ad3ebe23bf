"""Bringing a backup back: everything is checked before anything is touched, and nothing is ever deleted."""

import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import F
from django.db.models.functions import Now
from django_q.models import OrmQ

from interactions.spooling import left_behind_record
from kalimtak import fsck
from kalimtak.backup.contents import DEMO, PRIVATE, SPOOL, Contents, copy_tree, subject_key_fingerprint
from kalimtak.backup.databases import Engine, drivers_errors, engine
from kalimtak.core import audit
from kalimtak.core.commands import Report, silent
from kalimtak.core.errors import Conflict, InvalidInput, Unavailable
from kalimtak.core.findings import Finding
from kalimtak.core.models import Job
from kalimtak.installation import KEYS
from registry import store
from registry.manifest import fsync_path, fsync_tree

RESTORING = "_restoring"


@dataclass
class Restored:
    """What a restore did: where the old lies now, how many jobs were requeued, what `fsck` found, and remarks."""

    contents: Contents
    aside: list[str] = field(default_factory=list)
    requeued: int = 0
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@drivers_errors()
def backup_restore(folder: Path, *, force: bool = False, actor: str, report: Report = silent) -> Restored:
    """Make this installation what it was when `folder` was backed up.

    With `force` an installation that is not empty is moved aside first. The order lets a restore that was broken off
    simply be repeated: first the files lie whole beside their places, then the database, which decides, is changed.
    Raises `InvalidInput` for a backup that is damaged or does not fit, `Conflict` for an installation that is in use or
    not empty, `Unavailable` for a database or disk that cannot take it; before any of them nothing was changed.
    """
    connection.close()  # our own session is no company
    contents, target = Contents.read(folder), engine()
    _refuse_misfits(contents, target)
    report(0.0, "reading every file of the backup")
    contents.verify(folder)
    target.check_readable(folder / target.file_name)
    target.refuse_company()
    _refuse_occupied(target, force)
    _check_space(contents)
    restored = Restored(contents)
    report(0.4, "copying the files")
    _prepare_store(folder / "store")
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    report(0.6, "restoring the database")
    if kept := target.load(folder / target.file_name, stamp):
        restored.aside.append(kept)
    restored.aside += _exchange_store(stamp) + _exchange_private(folder / "var", stamp)
    report(0.8, "taking jobs back")
    _wake(restored, contents, actor)
    report(0.9, "checking every invariant")
    restored.findings = fsck.find()
    return restored


# Refusing --------------------------------------------------------------------------------------------------------


def _refuse_misfits(contents: Contents, target: Engine) -> None:
    if contents.engine != target.name:
        raise InvalidInput(
            f"This is a backup of {contents.engine}, and DATABASE_URL names {target.name}. A backup goes back into the "
            f"kind of database it came from: set DATABASE_URL to one of {contents.engine}."
        )
    known = MigrationLoader(None, ignore_no_migrations=True)
    lacking = [name for name in contents.migrations if tuple(name.split(".", 1)) not in known.graph.nodes]
    newer = [name for name in lacking if name.partition(".")[0] in known.migrated_apps]
    if newer:
        raise InvalidInput(
            f"The backup was made by release {contents.kalimtak} and is newer than this code, which lacks "
            f"{', '.join(sorted(newer)[:3])}. Install that release or a later one first."
        )


def _refuse_occupied(target: Engine, force: bool) -> None:
    occupied = [] if target.is_empty() else ["the database"]
    occupied += ["the models store"] if any(_store_entries()) else []
    if occupied and not force:
        raise Conflict(
            f"{' and '.join(occupied).capitalize()} of this installation are not empty. With --force what is there is "
            "moved aside; nothing is deleted.",
            code="not_empty",
        )


def _check_space(contents: Contents) -> None:
    free = shutil.disk_usage(store.root()).free
    if free < contents.size + settings.KALIMTAK_DISK_RESERVE:
        missing = (contents.size + settings.KALIMTAK_DISK_RESERVE - free) // 2**20 + 1
        raise Unavailable(f"The disk of the models store lacks {missing} MiB for this backup.", code="disk_full")


# Exchanging ------------------------------------------------------------------------------------------------------


def _store_entries() -> list[Path]:
    """What of the store a restore exchanges: not its README, nor what earlier restores moved aside."""
    kept = ("README.md", RESTORING)
    return [
        path
        for path in store.root().iterdir()
        if path.name not in kept and not path.name.startswith((".", store.ASIDE)) and _holds_something(path)
    ]


def _holds_something(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())


def _prepare_store(source: Path) -> None:
    """A whole copy beside its place, on the store's own file system."""
    draft = store.root() / RESTORING
    shutil.rmtree(draft, ignore_errors=True)  # of a restore that was broken off
    copy_tree(source, draft)
    fsync_tree(draft)


def _exchange_store(stamp: str) -> list[str]:
    root, aside = store.root(), store.root() / f"{store.ASIDE}{stamp}"
    old = _store_entries()
    if old:
        aside.mkdir()
    for path in old:
        path.rename(aside / path.name)
    draft = root / RESTORING
    for path in sorted(draft.iterdir()):
        if (root / path.name).is_dir():
            (root / path.name).rmdir()  # an empty area
        path.rename(root / path.name)
    draft.rmdir()
    fsync_path(root)
    return [str(aside)] if old else []


def _exchange_private(source: Path, stamp: str) -> list[str]:
    """Keys, the demo's credentials and answers that waited to be recorded.

    Work folders of runs, and answers of versions, that the restored database may not know go aside.
    """
    var, aside = Path(settings.KALIMTAK_VAR), Path(settings.KALIMTAK_VAR) / f"before-{stamp}"
    theirs = [name for name in (*PRIVATE, SPOOL) if (source / name).exists() and _holds_something(source / name)]
    # A demo's credentials that stayed would open what is restored to visitors (see KALIMTAK_ANONYMOUS).
    replaced = dict.fromkeys([*theirs, DEMO, SPOOL, "runs"])
    old = [var / name for name in replaced if (var / name).exists() and _holds_something(var / name)]
    if old:
        aside.mkdir(mode=0o700)
    for path in old:
        path.rename(aside / path.name)
    for name in theirs:
        if (source / name).is_dir():
            (var / name).mkdir(mode=0o700, exist_ok=True)
            copy_tree(source / name, var / name)
        else:
            shutil.copyfile(source / name, var / name)
        for path in [var / name, *(var / name).rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)
        fsync_tree(var / name) if (var / name).is_dir() else fsync_path(var / name)
    return [str(aside)] if old else []


# Waking up -------------------------------------------------------------------------------------------------------


def _wake(restored: Restored, contents: Contents, actor: str) -> None:
    """Bring the tables up to this code, take jobs back from processes of another time, and note who restored what."""
    _use_restored_keys()
    if contents.subject_key and contents.subject_key != subject_key_fingerprint():
        restored.remarks.append(
            "KALIMTAK_SUBJECT_KEY of this environment is not the backup's: nobody of before will be recognised. Set it."
        )
    connection.close()
    call_command("migrate", interactive=False, verbosity=0)
    if recorded := left_behind_record():
        restored.remarks.append(f"{recorded} answers that waited in the spool were recorded.")
    with transaction.atomic():
        restored.requeued = _requeue()
        OrmQ.objects.all().delete()  # wake-ups of another time; the reaper rings anew
        data = {"created": contents.created, "requeued": restored.requeued, "aside": restored.aside}
        audit.record(actor, "installation.restore", contents.created, **data)


def _requeue() -> int:
    """No process holds a job any more, and the attempt does not count; the token shuts out one that still thinks so."""
    running = Job.objects.filter(state=Job.State.RUNNING)
    released = {"lease_until": None, "slot": "", "token": F("token") + 1}
    running.filter(cancel_requested=True).update(state=Job.State.CANCELLED, finished_at=Now(), **released)
    note = "Restored from a backup; waiting for another attempt."
    return running.update(state=Job.State.QUEUED, attempt=F("attempt") - 1, note=note, **released)


def _use_restored_keys() -> None:
    """This process started before the keys were there; those of the environment win."""
    for file_name, setting in KEYS.items():
        path = Path(settings.KALIMTAK_VAR) / "keys" / file_name
        if path.is_file() and not os.environ.get(setting):
            setattr(settings, setting, path.read_text(encoding="ascii").strip())
