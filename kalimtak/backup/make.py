"""Making a backup while the installation works."""

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from interactions import spool
from interactions.services import spool_folder
from kalimtak.backup.contents import PRIVATE, SPOOL, Contents, copy_tree, subject_key_fingerprint, tree_size
from kalimtak.backup.databases import Engine, Snapshot, drivers_errors, engine
from kalimtak.core.commands import Report, silent
from kalimtak.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from registry import store
from registry.manifest import ArtefactCorrupt, fsync_path, fsync_tree, hash_files, verify_manifest

SPARE = 64 * 2**20


@drivers_errors()
def backup_make(folder: Path, *, report: Report = silent) -> tuple[Contents, list[str]]:
    """Write the backup `folder`, all of it or nothing; its contents, and what somebody should know about it.

    The database is copied first, at one instant, and then exactly the files that this copy knows. That suffices: a
    version's folder and an upload are in their places before their rows are committed, and are never changed nor
    removed afterwards, so whatever a row of the copy names is there; what was published later is left out with its
    row. Raises `InvalidInput`, `Conflict` and `Unavailable`.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} exists already; name a new folder.", code="exists")
    if folder.is_relative_to(store.root()):
        raise InvalidInput("A backup cannot lie in the models store that it copies.")
    if not folder.parent.is_dir():
        raise InvalidInput(f"{folder.parent} is not a folder.")
    draft = folder.with_name(f"{folder.name}.partial")
    source = engine()
    _check_space(folder.parent, source)
    mask = os.umask(0o077)  # it holds people's texts, and the keys
    try:
        try:
            draft.mkdir()
        except FileExistsError:
            what = "left by a backup that was broken off, or being written now; remove it, or name another folder"
            raise Conflict(f"{draft} exists: {what}.", code="exists") from None
        try:
            return _fill(draft, folder, source, report)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    finally:
        os.umask(mask)


def _fill(draft: Path, folder: Path, source: Engine, report: Report) -> tuple[Contents, list[str]]:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    report(0.0, "copying the database")
    _copy_spool(draft / "var" / SPOOL)  # first: what leaves it meanwhile is in the database before
    snapshot = source.dump(draft / source.file_name)
    remarks = _copy_store(draft / "store", snapshot, report)
    remarks += _copy_private(draft / "var")
    report(0.8, "hashing")
    contents = Contents(
        kalimtak=str(settings.SPECTACULAR_SETTINGS["VERSION"]),
        created=created,
        engine=source.name,
        engine_version=snapshot.engine_version,
        migrations=snapshot.migrations,
        subject_key=subject_key_fingerprint(),
        files=hash_files(draft),
    )
    contents.write(draft)
    report(0.95, "bringing it to the disk")
    fsync_tree(draft)
    if folder.exists():
        folder.rmdir()  # it is empty
    draft.rename(folder)
    fsync_path(folder.parent)
    return contents, remarks


def _check_space(parent: Path, source: Engine) -> None:
    """Before anything is written. Raises `Unavailable`."""
    needed = tree_size(store.root()) + source.size() + SPARE
    free = shutil.disk_usage(parent).free
    if free < needed:
        missing = (needed - free) // 2**20 + 1
        raise Unavailable(f"{parent} lacks {missing} MiB for this backup; free some space.", code="disk_full")


def _copy_store(target: Path, snapshot: Snapshot, report: Report) -> list[str]:
    """A damaged version or upload is copied as it is, and said: it must not keep the others from being saved."""
    remarks = []
    target.mkdir()
    total = len(snapshot.versions) + len(snapshot.uploads)
    for index, (slug, number) in enumerate(snapshot.versions):
        report(0.3 + 0.5 * index / total, f"copying {slug}/{number}")
        folder = store.version_folder(slug, number)
        if not folder.is_dir():
            remarks.append(f"{slug}/{number} is missing from the models store.")
            continue
        copy_tree(folder, target / slug / str(number))
        try:
            verify_manifest(target / slug / str(number), contents=False)
        except ArtefactCorrupt as error:
            remarks.append(f"{slug}/{number} is damaged ({error}) and was copied as it is.")
    (target / "_datasets").mkdir()
    for index, digest in enumerate(snapshot.uploads, start=len(snapshot.versions)):
        report(0.3 + 0.5 * index / total, "copying uploads")
        try:
            shutil.copyfile(store.dataset_path(digest), target / "_datasets" / digest)
        except NotFound:
            remarks.append(f"The upload {digest} is missing from the models store.")
    return remarks


def _copy_spool(target: Path) -> None:
    """Answers that wait to be recorded. A last one that is being written just now is dropped by whoever reads it."""
    target.parent.mkdir()
    for path in spool.files(spool_folder(), spool.WAITING, spool.REFUSED, spool.DAMAGED):
        target.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # recorded this moment
            shutil.copyfile(path, target / path.name)


def _copy_private(target: Path) -> list[str]:
    """The keys that `setup` generated; those of the environment are for its owner to keep."""
    for name in PRIVATE:
        path = settings.KALIMTAK_VAR / name
        if path.is_dir():
            copy_tree(path, target / name)
        elif path.is_file():
            shutil.copyfile(path, target / name)
    if not (target / "keys" / "subject_key").is_file():
        return ["KALIMTAK_SUBJECT_KEY comes from the environment and is not in the backup; keep it safe yourself."]
    return []
