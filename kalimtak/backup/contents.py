"""A backup's `manifest.json`, and the places of an installation that a backup holds."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from django.conf import settings

from kalimtak.core.errors import InvalidInput
from registry.manifest import MANIFEST_NAME, ArtefactCorrupt, check_files

FORMAT = 1  # 1: first
MAX_MANIFEST_BYTES = 256 * 2**20
DEMO = "demo.json"
SPOOL = "spool"
PRIVATE = ("keys", DEMO)  # below KALIMTAK_VAR, copied as they are; the spool is a moving target


@dataclass(frozen=True)
class Contents:
    """What a backup is. `migrations` are "app.name", `files` {relative path: {"sha256", "size"}}."""

    kalimtak: str
    created: str  # ISO 8601 with offset
    engine: str  # "sqlite" or "postgresql"
    engine_version: str
    migrations: list[str]
    subject_key: str  # a fingerprint: another key would recognise nobody
    files: dict[str, dict[str, Any]]
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        body = asdict(self)
        text = json.dumps({"sha256": _digest(body), **body}, indent=1, sort_keys=True)
        with (folder / MANIFEST_NAME).open("w", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Parse the manifest without looking at the files. Raises `InvalidInput`."""
        path = folder / MANIFEST_NAME
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise ValueError("it is too large")
            body = json.loads(path.read_bytes())
            digest = body.pop("sha256")
        except OSError as error:
            raise InvalidInput(f"{folder} is no backup: {MANIFEST_NAME}: {error.strerror}.") from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"{folder} is damaged: {MANIFEST_NAME} cannot be read.") from error
        if body.get("format") != FORMAT:
            raise InvalidInput(f"{folder} has format {body.get('format')!r}; this release reads {FORMAT}.")
        if digest != _digest(body) or body.keys() != {field.name for field in fields(cls)} or not _is_whole(body):
            raise InvalidInput(f"{folder} is damaged: {MANIFEST_NAME} was altered.")
        return cls(**body)

    def verify(self, folder: Path) -> None:
        """Read every file. Raises `InvalidInput` where one is missing, altered, or too many."""
        try:
            check_files(folder, self.files)
        except ArtefactCorrupt as error:
            raise InvalidInput(f"{folder} is damaged: {error}. Nothing was changed; use another backup.") from error

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(int(entry["size"]) for entry in self.files.values())


def _is_whole(body: dict[str, Any]) -> bool:
    """What we wrote is of this form; the hash keeps chance away, this keeps surprises away."""
    return (
        isinstance(body["files"], dict)
        and all(isinstance(entry, dict) and entry.keys() == {"sha256", "size"} for entry in body["files"].values())
        and isinstance(body["migrations"], list)
        and all(isinstance(name, str) and "." in name for name in body["migrations"])
    )


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def subject_key_fingerprint() -> str:
    """Tells keys apart without telling the key, which is 48 random bytes; "" where there is none."""
    key = settings.KALIMTAK_SUBJECT_KEY
    return hashlib.sha256(f"kalimtak backup {key}".encode()).hexdigest()[:16] if key else ""


# Copying ---------------------------------------------------------------------------------------------------------


def copy_tree(source: Path, target: Path) -> None:
    """Copy the files below `source`, with the modes that new files get here. Links are left out."""
    for parent, _folders, names in os.walk(source):
        here = target / Path(parent).relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, here / name)


def tree_size(folder: Path) -> int:
    """Bytes of the files below `folder`; of a file, its own. What vanishes meanwhile counts nothing."""
    below = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    paths = [folder] if folder.is_file() else below
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
