"""Checkpoints that are whole or absent: written aside, fsynced, sealed with every file's SHA-256, then renamed.

transformers writes its checkpoints in place, takes the highest number for the newest whether complete or not, goes on
with a fresh optimiser where that file is missing, and cannot notice a flipped bit. So its folder is only a draft here,
and nothing is read back before its manifest verifies.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from kalimtak.core.crashpoints import crashpoint
from registry.manifest import MANIFEST_NAME, ArtefactCorrupt, check_files, fsync_path, fsync_tree, hash_files

KEEP = 2
_PREFIX = "checkpoint-"
_UNUSED = "training_args.bin"  # a pickle that resuming does not read


class Checkpoints:
    """The checkpoints of one run below `folder`; those of another run (another `fingerprint`) are never resumed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.drafts = folder / "drafts"

    def clear(self) -> None:
        """Forget everything, to start anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def seal(self, draft: Path, name: str) -> Path:
        """Turn the finished folder `draft` into checkpoint `name`, replacing one of that name."""
        (draft / _UNUSED).unlink(missing_ok=True)
        described = {"fingerprint": self.fingerprint, "files": hash_files(draft)}
        crashpoint("checkpoint.before_manifest")
        (draft / MANIFEST_NAME).write_text(json.dumps(described), encoding="utf-8")
        fsync_tree(draft)
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        crashpoint("checkpoint.before_rename")
        draft.rename(target)
        fsync_path(self.folder)
        crashpoint("checkpoint.after_rename")
        return target

    def seal_step(self, step: int) -> None:
        """Seal what transformers drafted after `step` updates, and let go of all but the newest `KEEP`."""
        self.seal(self.drafts / f"{_PREFIX}{step}", f"{_PREFIX}{step}")
        for old in self._by_age()[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> Path | None:
        """The newest checkpoint of this run that is intact; None where there is none."""
        return next((path for path in self._by_age() if self.is_intact(path)), None)

    def is_intact(self, checkpoint: Path) -> bool:
        """Whether its manifest names this run and every file is as it was written."""
        try:
            described: dict[str, Any] = json.loads((checkpoint / MANIFEST_NAME).read_bytes())
            check_files(checkpoint, described["files"])
        except (OSError, ValueError, KeyError, TypeError, ArtefactCorrupt):
            return False
        return described.get("fingerprint") == self.fingerprint

    def _by_age(self) -> list[Path]:
        """Newest first, intact or not."""
        found = [path for path in self.folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
        return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)
