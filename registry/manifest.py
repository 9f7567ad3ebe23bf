"""`manifest.json`: what an artefact folder holds, with the SHA-256 of every file. The only reader and writer of it.

A folder is sealed once, last of all, and never written again. Anything that does not match its manifest to the byte is
`ArtefactCorrupt`: safetensors notices a truncated file but loads a flipped bit without a word. Knows nothing of where
artefacts are kept.
"""

import dataclasses
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self

from kalimtak.core.crashpoints import crashpoint

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1  # 1: first
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_SAFETENSORS_HEADER = 100 * 10**6  # the format's own limit

# What a package may be made of; everything that Python or torch would unpickle or import stays out.
ALLOWED_SUFFIXES = frozenset(
    {"", ".json", ".jsonl", ".txt", ".md", ".png", ".safetensors", ".onnx", ".data", ".model", ".jinja"}
)
_PICKLE_PROTOCOLS = frozenset({b"\x80" + bytes([protocol]) for protocol in range(2, 6)})
_UNWELCOME = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_CONTAINERS = {b"PK\x03\x04": "a zip archive, as torch pickles are", b"\x93NUM": "a numpy file, which may hold pickles"}


class ArtefactCorrupt(Exception):
    """The folder is not what its manifest says, or holds what no artefact may hold. The message names the file."""


@dataclass(frozen=True)
class Manifest:
    """What a version is. `parameters` counts weights, `base_model` is None for a model trained from nothing."""

    classifier: str
    family: str
    labels: tuple[str, ...]
    input_fields: tuple[str, ...]
    preprocessing: int
    max_length: int | None  # tokens; None where the family reads texts of any length
    recipe: dict[str, Any]
    calibration: dict[str, Any]
    metrics: dict[str, Any]
    seed: int
    snapshot_digest: str | None
    libraries: dict[str, str]
    parameters: dict[str, int]
    base_model: dict[str, str] | None
    created: str  # ISO 8601 with offset
    format_version: int = FORMAT_VERSION
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # relative path → {"sha256", "size" (bytes)}

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return dataclasses.asdict(self) | {"labels": list(self.labels), "input_fields": list(self.input_fields)}

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        """Raises `ArtefactCorrupt` for a missing, unknown or mistyped key."""
        if not isinstance(raw, dict):
            raise ArtefactCorrupt(f"{MANIFEST_NAME} is not a JSON object")
        if raw.get("format_version") != FORMAT_VERSION:
            raise ArtefactCorrupt(
                f"{MANIFEST_NAME} has format version {raw.get('format_version')!r}; this release reads {FORMAT_VERSION}"
            )
        known = {entry.name for entry in dataclasses.fields(cls)}
        if odd := sorted(known ^ raw.keys()):
            raise ArtefactCorrupt(f"{MANIFEST_NAME} lacks or does not know: {', '.join(odd)}")
        for name, holds in _SCHEMA.items():
            if not holds(raw[name]):
                raise ArtefactCorrupt(f"{MANIFEST_NAME}: {name} is not of the expected form")
        return cls(**raw | {"labels": tuple(raw["labels"]), "input_fields": tuple(raw["input_fields"])})


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Seal `folder`: hash and fsync all it holds, then write `manifest.json` last and whole. Returns what was written.

    Whatever `manifest.files` says is replaced. Raises `FileExistsError` if the folder is sealed already and
    `ArtefactCorrupt` if it holds something no artefact may hold, or the manifest itself is malformed.
    """
    target = folder / MANIFEST_NAME
    if target.exists():
        raise FileExistsError(f"{target} exists; a sealed artefact is never overwritten")
    draft = folder / f"{MANIFEST_NAME}.tmp"
    draft.unlink(missing_ok=True)
    sealed = dataclasses.replace(manifest, files=hash_files(folder))
    text = json.dumps(sealed.to_dict(), ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
    Manifest.from_dict(json.loads(text))
    _refuse_unsafe_content(folder, sealed.files)
    fsync_tree(folder)
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    crashpoint("manifest.before_rename")
    draft.replace(target)
    fsync_path(folder)
    return sealed


def read_manifest(folder: Path) -> Manifest:
    """Parse and check `manifest.json` without looking at the files. Raises `ArtefactCorrupt`."""
    try:
        raw = json.loads(_manifest_bytes(folder), object_pairs_hook=_distinct_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactCorrupt(f"{MANIFEST_NAME} cannot be read: {error}") from error
    return Manifest.from_dict(raw)


def verify_manifest(folder: Path, *, contents: bool = True) -> Manifest:
    """`read_manifest`, then every file: size, SHA-256, none missing, none added, nothing that could run code.

    Raises `ArtefactCorrupt`. Costs one read of the folder; without `contents` the hashes are taken on trust.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest.files, contents=contents)
    _refuse_unsafe_content(folder, manifest.files)
    return manifest


def manifest_digest(folder: Path) -> str:
    """SHA-256 of `manifest.json`, which covers every file: the digest of the artefact. Raises `ArtefactCorrupt`."""
    return hashlib.sha256(_manifest_bytes(folder)).hexdigest()


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """`{relative path: {"sha256", "size"}}` of all below `folder` but its manifest. Refuses links."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": hash_file(path), "size": path.stat().st_size}
        for path in sorted(_files_below(folder))
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], *, contents: bool = True) -> None:
    """Raise `ArtefactCorrupt` unless `folder` holds exactly `files`, byte for byte (sizes are compared first).

    Without `contents` only names and sizes are compared.
    """
    found = {path.relative_to(folder).as_posix(): path for path in _files_below(folder)}
    if missing := sorted(files.keys() - found.keys()):
        raise ArtefactCorrupt(f"missing from the folder: {', '.join(missing)}")
    if extra := sorted(found.keys() - files.keys()):
        raise ArtefactCorrupt(f"not in the manifest: {', '.join(extra)}")
    for name, path in found.items():
        if path.stat().st_size != files[name]["size"]:
            raise ArtefactCorrupt(f"{name} has {path.stat().st_size} bytes, the manifest says {files[name]['size']}")
    for name, path in found.items():
        if contents and hash_file(path) != files[name]["sha256"]:
            raise ArtefactCorrupt(f"{name} was altered: its SHA-256 is not the manifest's")


def fsync_tree(folder: Path) -> None:
    """Bring files, then the folders that name them, to the disk, the deepest first."""
    for parent, _folders, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_path(Path(parent, name))
        fsync_path(Path(parent))


def fsync_path(path: Path) -> None:
    """Bring one file, or the list of names in one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder` but its own manifest, folders without files unseen. Refuses links and devices."""
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        for name in folders + names:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ArtefactCorrupt(f"{path.relative_to(folder)} is a link or a device, not a file")
            if stat.S_ISREG(mode) and path != folder / MANIFEST_NAME:
                yield path


def _unreadable(error: OSError) -> None:
    raise ArtefactCorrupt(f"{error.filename} cannot be read: {error.strerror}") from error


def _refuse_unsafe_content(folder: Path, names: Iterable[str]) -> None:
    """Raise `ArtefactCorrupt` for files that a library might run, unpickle or choke on."""
    for name in names:
        path = folder / name
        if path.suffix.lower() not in ALLOWED_SUFFIXES:
            raise ArtefactCorrupt(f"{name} is of a kind no artefact may hold ({path.suffix})")
        with path.open("rb") as stream:
            head = stream.read(8)
        if head[:2] in _PICKLE_PROTOCOLS:
            raise ArtefactCorrupt(f"{name} is a pickle")
        if head[:4] in _CONTAINERS:
            raise ArtefactCorrupt(f"{name} is {_CONTAINERS[head[:4]]}")
        if path.suffix.lower() == ".safetensors":
            _check_safetensors_header(name, head, path.stat().st_size)
        elif name.lower().endswith("config.json"):
            _refuse_remote_code(name, path)


def _check_safetensors_header(name: str, head: bytes, size: int) -> None:
    """The file opens with its header's length as a little-endian u64; a lying one makes readers allocate at will."""
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(size - 8, MAX_SAFETENSORS_HEADER):
        raise ArtefactCorrupt(f"{name} claims a header of {length} bytes in a file of {size}")


def _refuse_remote_code(name: str, path: Path) -> None:
    """`auto_map` in a transformers configuration names Python classes to import from the package."""
    try:
        found = "auto_map" in _keys(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ArtefactCorrupt(f"{name} is not JSON: {error}") from error
    if found:
        raise ArtefactCorrupt(f"{name} names code to import (auto_map)")


def _keys(value: Any) -> Iterator[str]:
    """Every key of every object inside a JSON value."""
    if isinstance(value, dict):
        yield from value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _keys(child)


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        size = path.lstat().st_size
        if path.is_symlink() or size > MAX_MANIFEST_BYTES:
            raise ArtefactCorrupt(f"{MANIFEST_NAME} is a link or larger than {MAX_MANIFEST_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ArtefactCorrupt(f"{MANIFEST_NAME} cannot be read: {error.strerror}") from error


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated keys: two readers might each believe another one of them."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return mapping


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _UNWELCOME.search(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_inner_path(value: str) -> bool:
    """A plain relative POSIX path that stays inside the folder and has only one spelling."""
    path = PurePosixPath(value)
    plain = _is_text(value) and "\\" not in value and not path.is_absolute() and ".." not in path.parts
    return plain and str(path) == value and value not in (".", MANIFEST_NAME)


def _is_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_inner_path(name)
        and isinstance(entry, dict)
        and entry.keys() == {"sha256", "size"}
        and _is_digest(entry["sha256"])
        and _is_count(entry["size"])
        for name, entry in value.items()
    )


def _is_base_model(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and value.keys() == {"id", "sha256"} and all(map(_is_text, value.values()))


def _is_text_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_parameters(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"total", "trainable"} and all(map(_is_count, value.values()))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_SCHEMA: dict[str, Callable[[Any], bool]] = {
    "classifier": _is_text,
    "family": _is_text,
    "labels": lambda value: _is_names(value) and len(value) >= 2,
    "input_fields": _is_names,
    "preprocessing": _is_count,
    "max_length": lambda value: value is None or (_is_count(value) and value > 0),
    "recipe": _is_object,
    "calibration": _is_object,
    "metrics": _is_object,
    "seed": _is_count,
    "snapshot_digest": lambda value: value is None or _is_digest(value),
    "libraries": _is_text_mapping,
    "parameters": _is_parameters,
    "base_model": _is_base_model,
    "created": _is_time,
    "files": _is_files,
}
