"""A pretrained encoder as files that answer without torch: tokens in, one vector of length 1 out.

The vector is the mean of the last layer over the tokens that are not padding, scaled to length 1: Sentence-BERT's
pooling (Reimers & Gurevych, EMNLP 2019), as the model card of sentence-transformers/all-MiniLM-L6-v2 gives it.

Converting takes torch and a quarter of a minute, so it is done once for each base model and kept in the cache,
`encoders/<SHA-256 of the weights>-v<VERSION>/`: `model.onnx` (fp32), `model.int8.onnx`, `tokenizer.json`, and
`encoder.json` with the digest of each, without which nothing there is used.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from registry.families.base import FamilyError, Reporter, Stopped
from registry.families.base_models import BaseModel
from registry.families.onnx_predictor import FP32_NAME, INT8_NAME, TOKENIZER_NAME
from registry.families.process_environment import prepare_libraries
from registry.manifest import fsync_path, fsync_tree, hash_file

VERSION = 1  # of the conversion; another one makes the files of the others useless
DESCRIPTION_NAME = "encoder.json"
UNUSED_SECONDS = 30 * 24 * 3600  # after that what was converted goes
DRAFT, _DRAFT_SECONDS = "draft-", 3600
_LOCK = "lock"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class FrozenEncoder:
    """The files in `folder` and their SHA-256; `width` of a vector, weights, and the most `tokens` it can read."""

    folder: Path
    files: dict[str, str]
    width: int
    parameters: int
    tokens: int

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER_NAME

    def digest(self, graph: str) -> str:
        """What decides the vectors that the graph of this name gives, beside the text and its greatest length."""
        return f"{self.files[graph]}:{self.files[TOKENIZER_NAME]}"


def frozen_encoder(base: BaseModel, cache: Path, reporter: Reporter) -> FrozenEncoder:
    """The converted `base`, converted now where the cache has none that is whole.

    Two runs at once convert once. Raises FamilyError for what is not a text encoder, and Stopped.
    """
    area = cache / "encoders"
    area.mkdir(parents=True, exist_ok=True)
    folder = area / f"{base.sha256}-v{VERSION}"
    with _alone(area, reporter):
        remove_unused(area)
        found = _read(folder)
        if found is None:
            reporter.progress(0.0, f"Converting {base.id}, once for all runs")
            _convert(base, folder)
            found = _read(folder)
        if found is None:
            raise FamilyError(f"The converted {base.id} in {area} is not whole; check the disk it lies on.")
        os.utime(folder)
    return found


def _read(folder: Path) -> FrozenEncoder | None:
    """What lies in `folder`; None where it is not whole to the byte."""
    try:
        described = json.loads((folder / DESCRIPTION_NAME).read_text(encoding="utf-8"))
        files = {name: described["files"][name] for name in (FP32_NAME, INT8_NAME, TOKENIZER_NAME)}
        if any(hash_file(folder / name) != digest for name, digest in files.items()):
            return None
        return FrozenEncoder(folder, files, described["width"], described["parameters"], described["tokens"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _convert(base: BaseModel, folder: Path) -> None:
    """Write aside, to the disk, then rename; what lay there before was not whole."""
    prepare_libraries()  # before the next line imports torch
    from registry.families.encoder_conversion import convert_encoder

    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder.parent))
    try:
        sizes = convert_encoder(base, draft)
        files = {name: hash_file(draft / name) for name in (FP32_NAME, INT8_NAME, TOKENIZER_NAME)}
        described = {"base_model": base.to_dict(), **sizes, "files": files}
        (draft / DESCRIPTION_NAME).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        fsync_tree(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _alone(area: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the lock of the cache; wait for another run's conversion, unless asked to stop."""
    with (area / _LOCK).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if reporter.stop_requested():
                    raise Stopped("stopped while another run converts the encoder") from None
                time.sleep(_POLL_SECONDS)
        yield


def remove_unused(area: Path) -> None:
    """What no run asked for in a month, and drafts of processes that were killed."""
    for path in area.iterdir():
        if path.name == _LOCK:
            continue
        limit = _DRAFT_SECONDS if path.name.startswith(DRAFT) else UNUSED_SECONDS
        with suppress(FileNotFoundError):  # another run may be doing the same
            if path.stat().st_mtime >= time.time() - limit:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
