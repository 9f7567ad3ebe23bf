"""`python -m registry.families.verify FOLDER`: does this package load here, whole, and answer as it was built to?

A process of its own, so that nothing the trainer had in memory can help. Prints one JSON line `{"ok", "problems"}`;
exit code 0 when all is well, 1 otherwise.
"""

import json
import sys
from pathlib import Path

from registry.families.base import FamilyError
from registry.families.probes import check_probes
from registry.manifest import ArtefactCorrupt, verify_manifest


def problems_of(folder: Path) -> list[str]:
    """What is wrong with an artefact folder, in lines for people; empty when nothing is."""
    try:
        verify_manifest(folder)
        return check_probes(folder)
    except (ArtefactCorrupt, FamilyError) as error:
        return [str(error)]
    except Exception as error:  # whatever a library makes of these files, the version must not serve
        return [f"the package cannot be loaded: {type(error).__name__}: {error}"]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m registry.families.verify FOLDER", file=sys.stderr)  # noqa: T201
        return 2
    problems = problems_of(Path(arguments[0]))
    print(json.dumps({"ok": not problems, "problems": problems}))  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
