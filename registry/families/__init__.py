"""The table of model families, and the one way to answer from an artefact folder.

A family's module is imported when it is first needed, so that asking for a classic model never pays for another
family's libraries, and nothing here ever imports torch.
"""

from importlib import import_module
from pathlib import Path
from typing import cast

from registry.families.base import Family, FamilyError, Predictor
from registry.manifest import read_manifest, verify_manifest

FAMILIES: dict[str, str] = {
    "classic": "registry.families.classic",
    "custom": "registry.families.custom",
    "embedding": "registry.families.embedding",
    "encoder": "registry.families.encoder",
    "ensemble": "registry.families.ensemble",
    "lora": "registry.families.lora",
}


def family(name: str) -> Family:
    """The module that fits and loads `name`. Raises FamilyError for a name outside the table."""
    if name not in FAMILIES:
        raise FamilyError(f"Unknown model family {name!r}; this installation has {', '.join(sorted(FAMILIES))}.")
    return cast(Family, import_module(FAMILIES[name]))


def load(folder: Path, *, verify: bool = True) -> Predictor:
    """Load what answers from an artefact folder, checking every file's size and SHA-256 first.

    `verify=False` is for a caller that has just verified the same folder. Raises ArtefactCorrupt or FamilyError.
    """
    manifest = verify_manifest(folder) if verify else read_manifest(folder)
    return family(manifest.family).load(folder, manifest)
