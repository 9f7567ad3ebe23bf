"""Giving a version away."""

from pathlib import Path

from kalimtak.core import audit
from kalimtak.core.errors import Conflict, InvalidInput
from registry import store
from registry.exporting import export_artefact
from registry.families.base import FamilyError
from registry.manifest import ArtefactCorrupt
from registry.models import ModelVersion
from registry.services.versions import artefact_problems


def version_export(version: ModelVersion, target: Path, *, actor: str) -> None:
    """Write `version` to the new or empty folder `target`, so that it can be used without Kalimtak.

    Raises `Conflict` where the artefact is damaged or its answers do not lie in it, `InvalidInput` for a folder in use.
    """
    if problems := artefact_problems(version):
        raise Conflict(f"{version.ref} is corrupt: {'; '.join(problems)}.", code="corrupt_artefact")
    if not target.parent.is_dir():
        raise InvalidInput(f"There is no folder {target.parent}.")
    try:
        export_artefact(store.version_folder(version.classifier.slug, version.number), target)
    except FileExistsError as error:
        raise InvalidInput(str(error)) from error
    except (FamilyError, ArtefactCorrupt) as error:
        raise Conflict(str(error), code="not_exportable") from error
    audit.record(actor, "version.export", version.ref, digest=version.artefact_digest)
