"""Folders that must be writable, disks that must have room, keys that nobody else may read, and left-overs."""

import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from kalimtak.backup.contents import tree_size
from kalimtak.doctor.diagnosis import Diagnosis, Options, ok, problem, warning
from registry import store
from registry.services import staging_stale

LITTLE = 2 * 2**30
PROBE = b"kalimtak" * 512


def folders_can_be_written(options: Options) -> Iterator[Diagnosis]:
    """A file can be written, brought to the disk, and moved to where it belongs, and there is room for more."""
    for name, folder in (("var", settings.KALIMTAK_VAR), ("models store", settings.KALIMTAK_MODELS_STORE)):
        yield from _folder(name, Path(folder))
    yield from _one_file_system()
    uploads = Path(settings.FILE_UPLOAD_TEMP_DIR or tempfile.gettempdir())
    free = shutil.disk_usage(uploads).free if uploads.is_dir() else 0
    if free < settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        what = f"{uploads} has no room for uploads on their way"
        yield problem("uploads", what, "Free its disk, or set KALIMTAK_UPLOAD_TMP.")


def _folder(name: str, folder: Path) -> Iterator[Diagnosis]:
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("xb") as stream:
            stream.write(PROBE)
            stream.flush()
            os.fsync(stream.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "disk full" if full else f"cannot be written: {error.strerror}"
        remedy = "Free space on its disk; what failed is tried again or says so." if full else "Give it to this user."
        yield problem(name, f"{folder}: {what}", remedy)
        return
    finally:
        with suppress(OSError):
            probe.unlink()
    room = f"{free / 2**30:.1f} GiB free"
    if free < settings.KALIMTAK_DISK_RESERVE:
        what = f"{folder}: disk full but for {free // 2**20} MiB"
        yield problem(name, what, "Free space; until then uploads and training runs are refused.")
    elif free < LITTLE:
        yield warning(name, f"{folder}: only {room}", "Free space before the next training run needs it.")
    else:
        yield ok(name, f"{folder} can be written, {room}")


def _one_file_system() -> Iterator[Diagnosis]:
    """Publishing is a rename, which works within one file system only."""
    root = Path(settings.KALIMTAK_MODELS_STORE)
    if not root.is_dir():
        return
    device = root.stat().st_dev
    strange = [entry.name for entry in root.iterdir() if entry.is_dir() and entry.stat().st_dev != device]
    if strange:
        what = f"{', '.join(sorted(strange))} lie on another disk than the store, so nothing can be published there"
        yield problem("models store", what, "Mount the whole store as one file system.")


def keys_are_safe(options: Options) -> Iterator[Diagnosis]:
    """The keys exist, are long enough, and belong to nobody else."""
    sound = True
    for setting in ("SECRET_KEY", "KALIMTAK_SUBJECT_KEY"):
        value = str(getattr(settings._wrapped, setting, "") or "")  # type: ignore[misc]
        if len(value) < 32 or value.startswith("insecure"):
            sound = False
            what = f"{setting} is missing" if not value else f"{setting} is too easy to guess"
            yield problem("keys", what, "Run `manage.py setup`, which generates it, or set 50 random characters.")
    private = [settings.KALIMTAK_VAR / "keys", *(settings.KALIMTAK_VAR / "keys").glob("*")]
    for path in [*private, settings.KALIMTAK_VAR / "demo.json"]:
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            sound = False
            yield problem("keys", f"{path} can be read by others", f"`chmod go-rwx {path}`")
    if sound:
        yield ok("keys", "present, and readable by this user alone")


def nothing_is_left_over(options: Options) -> Iterator[Diagnosis]:
    """What crashes left behind takes room and is otherwise harmless."""
    stale = list(staging_stale())
    if stale:
        size = sum(tree_size(staging.path) for staging in stale)
        what = f"{len(stale)} left-overs of crashed runs or uploads in the store's staging area, {size // 2**20} MiB"
        yield warning("left-overs", what, "`manage.py setup` removes them, and so does the next training run.")
    orphans = store.root() / "_orphans"
    count = sum(1 for _ in orphans.iterdir()) if orphans.is_dir() else 0
    if count:
        what = f"{count} folders in {orphans}, set aside because no version knew them"
        yield warning("left-overs", what, "Look at them, then remove them.")
    if not stale and not count:
        yield ok("left-overs", "none")
