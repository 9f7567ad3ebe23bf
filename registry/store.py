"""The artefact store: the only module that knows paths under `models_store/`.

    <slug>/<number>/      a published version, never written again
    _datasets/<sha256>    an uploaded file, named by its content
    _staging/             what is being written: artefacts as <job id>-<token>, uploads as upload-<random>
    _before-<time>/       what was there before a backup was restored, kept likewise
    _orphans/             folders found where a new version belongs that no row knows, kept for a person to look at

Everything is written aside on the same file system, fsynced, then renamed, so that a reader sees all of it or nothing
and a power cut leaves at worst a stale staging folder. No path is made from text of a user: slugs, numbers and digests
are checked, and what they resolve to must lie inside the store.
"""

import hashlib
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple

from django.conf import settings

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import InvalidInput, NotFound, TooLarge, Unavailable, is_disk_full
from registry.manifest import fsync_path, fsync_tree, manifest_digest

BLOCK_BYTES = 2**20
ASIDE = "_before-"  # with a time: what a restore moved out of the way

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAGING = re.compile(r"(?P<job>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?P<token>\d{1,18})")


# Where things lie ------------------------------------------------------------------------------------------------


def root() -> Path:
    """The store's folder, made if need be."""
    folder = Path(settings.KALIMTAK_MODELS_STORE)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def version_folder(slug: str, number: int) -> Path:
    """Where a version lies once it is published; it need not exist. Raises `InvalidInput` for an impossible name."""
    if not _SLUG.fullmatch(slug) or isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidInput(f"{slug!r}/{number!r} cannot name a version; write it as emotion/3.")
    return _inside(root() / slug / str(number))


def published() -> Iterator[tuple[str, int, Path]]:
    """Every (slug, number, folder) that looks like a published version, whether or not a row knows it."""
    for parent in sorted(root().iterdir()):
        if not parent.is_dir() or not _SLUG.fullmatch(parent.name):
            continue
        for folder in sorted(parent.iterdir()):
            if folder.is_dir() and re.fullmatch(r"[1-9]\d*", folder.name):
                yield parent.name, int(folder.name), folder


def strangers() -> Iterator[Path]:
    """What lies where classifiers and versions lie and can be neither; files that begin with a dot are overlooked."""
    areas = {"_datasets", "_staging", "_orphans"}
    for entry in sorted(root().iterdir()):
        if entry.name.startswith((".", ASIDE)) or entry.name == "README.md" or entry.name in areas:
            continue
        if entry.is_symlink() or not entry.is_dir() or not _SLUG.fullmatch(entry.name):
            yield entry
            continue
        for inner in sorted(entry.iterdir()):
            if inner.is_symlink() or not inner.is_dir() or not re.fullmatch(r"[1-9]\d*", inner.name):
                yield inner


def free_space_check(needed: int) -> None:
    """Raise `Unavailable` (`disk_full`) unless `needed` bytes fit with a reserve, before anything is written.

    The reserve, `KALIMTAK_DISK_RESERVE`, is kept for the database and the logs, whose folder must have it, too.
    """
    reserve: int = settings.KALIMTAK_DISK_RESERVE
    for name, folder, wanted in (
        ("models store", root(), needed + reserve),
        ("folder of KALIMTAK_VAR", Path(settings.KALIMTAK_VAR), reserve),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < wanted:
            missing = (wanted - free) // 2**20 + 1
            raise Unavailable(
                f"The {name} lacks {missing} MiB; free some space on its disk.", code="disk_full", retry_after=600
            )


def _inside(path: Path) -> Path:
    """`path` with its links followed, which must not lead out of the store."""
    resolved = path.resolve()
    if not resolved.is_relative_to(root()):
        raise InvalidInput(f"{path.name!r} leads out of the models store.")
    return resolved


def _area(name: str) -> Path:
    folder = root() / name
    folder.mkdir(exist_ok=True)
    return _inside(folder)


# Versions --------------------------------------------------------------------------------------------------------


def staging_folder(job_id: uuid.UUID | str, token: int) -> Path:
    """The folder in which attempt `token` of a job builds its artefact, made if need be; no other attempt shares it."""
    name = f"{job_id}-{token}"
    if not _STAGING.fullmatch(name):
        raise InvalidInput(f"{name!r} is not the name of a job's attempt.")
    folder = _area("_staging") / name
    folder.mkdir(exist_ok=True)
    return folder


def publish(staging: Path, slug: str, number: int) -> str:
    """Move the sealed folder `staging` to its place for ever; returns the artefact's digest.

    The caller knows that no row has this number: a folder already there was left by a crash between rename and commit
    and is moved to `_orphans/`. Raises `ArtefactCorrupt` where `staging` has no readable manifest.
    """
    target = version_folder(slug, number)
    digest = manifest_digest(staging)
    fsync_tree(staging)
    if not target.parent.exists():
        target.parent.mkdir()
        fsync_path(root())
    if target.exists():
        _orphan(target)
        crashpoint("store.orphan_moved")
    crashpoint("store.before_rename")
    staging.rename(target)
    fsync_path(target.parent)
    fsync_path(staging.parent)
    crashpoint("store.after_rename")
    return digest


def _orphan(folder: Path) -> None:
    area = _area("_orphans")
    folder.rename(area / f"{folder.parent.name}-{folder.name}-{uuid.uuid4().hex[:8]}")
    fsync_path(area)


# What is left over -----------------------------------------------------------------------------------------------


class Staging(NamedTuple):
    """Something in `_staging/`. `job_id` and `token` are None for an upload; `age` since it was last written to."""

    path: Path
    job_id: uuid.UUID | None
    token: int | None
    age: timedelta


def staged() -> Iterator[Staging]:
    """Everything that is being written, or was when its process died."""
    for path in sorted(_area("_staging").iterdir()):
        match = _STAGING.fullmatch(path.name)
        try:
            newest = max(entry.lstat().st_mtime for entry in [path, *path.rglob("*")])
        except FileNotFoundError:  # published or removed while we looked
            continue
        yield Staging(
            path,
            job_id=uuid.UUID(match["job"]) if match else None,
            token=int(match["token"]) if match else None,
            age=timedelta(seconds=max(0.0, time.time() - newest)),
        )


def discard(staging: Path) -> None:
    """Remove something from `_staging/`, where nothing published lies."""
    if staging.resolve().parent != _area("_staging"):
        raise InvalidInput(f"{staging.name!r} is not in the staging area.")
    if staging.is_dir() and not staging.is_symlink():
        shutil.rmtree(staging, ignore_errors=True)
    else:
        staging.unlink(missing_ok=True)


# Uploaded files --------------------------------------------------------------------------------------------------


def dataset_put(source: BinaryIO | Path) -> str:
    """Keep a copy of a file under the SHA-256 of its content, which is returned; the same content is kept once.

    Raises `TooLarge` over `KALIMTAK_MAX_UPLOAD` bytes and `Unavailable` where the disk is too full.
    """
    if isinstance(source, Path):
        free_space_check(min(source.stat().st_size, settings.KALIMTAK_MAX_UPLOAD))
        with source.open("rb") as stream:
            return _dataset_write(stream)
    free_space_check(0)
    return _dataset_write(source)


def dataset_path(digest: str) -> Path:
    """Where the file with this SHA-256 lies. Raises `NotFound`."""
    path = _area("_datasets") / digest if _DIGEST.fullmatch(digest) else None
    if path is None or not path.is_file() or path.is_symlink():
        raise NotFound("The uploaded file is not in the store any more; upload it again.")
    return path


def dataset_remove(digest: str, *, before: datetime) -> None:
    """Remove an uploaded file that no row names any more, unless somebody has put it there again since `before`."""
    with suppress(FileNotFoundError, NotFound):
        path = dataset_path(digest)
        if path.stat().st_mtime <= before.timestamp():
            path.unlink()


def dataset_files() -> Iterator[Path]:
    """Every uploaded file, and whatever else lies among them."""
    yield from sorted(_area("_datasets").iterdir())


def _dataset_write(stream: BinaryIO) -> str:
    draft = _area("_staging") / f"upload-{uuid.uuid4().hex}"
    try:
        with draft.open("xb") as copy:
            digest = _copy_hashing(stream, copy)
        area = _area("_datasets")
        # A file of this name has this content, unless the disk damaged it: replacing it is never wrong.
        crashpoint("store.dataset_before_rename")
        draft.replace(area / digest)
        fsync_path(area)
        crashpoint("store.dataset_after_rename")
        return digest
    except OSError as error:
        if is_disk_full(error):
            message = "The disk of the models store became full; free some space on it."
            raise Unavailable(message, code="disk_full", retry_after=600) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def _copy_hashing(stream: BinaryIO, copy: io.BufferedWriter) -> str:
    """Copy in blocks and to the disk; the SHA-256 of what was copied."""
    limit: int = settings.KALIMTAK_MAX_UPLOAD
    digest, size = hashlib.sha256(), 0
    while block := stream.read(BLOCK_BYTES):
        size += len(block)
        if size > limit:
            raise TooLarge(f"The file is over {limit} bytes; split it, or raise KALIMTAK_MAX_UPLOAD.")
        digest.update(block)
        copy.write(block)
    copy.flush()
    os.fsync(copy.fileno())
    return digest.hexdigest()
