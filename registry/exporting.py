"""A version as a folder that needs no Kalimtak: its artefact, scripts that answer from it, and what they need.

    README.md            what it is, how to use it
    predict.py           answers from `model/serving/` as Kalimtak does, with scikit-learn or onnxruntime
    member_….py          of an ensemble: the same for its members, which predict.py asks
    predict_transformers.py   of an encoder: the same in full precision, from `model/package/`
    preparation.py       what is done to a text first
    requirements.txt     the libraries, as this installation has them
    model/               the artefact, to the byte

Knows folders, not Django.
"""

import shutil
import string
import uuid
from importlib import metadata
from pathlib import Path

from registry.families.base import FamilyError
from registry.manifest import Manifest, fsync_path, fsync_tree, verify_manifest

_ROOT = Path(__file__).resolve().parent
_SCRIPTS = _ROOT.parent / "templates" / "export"
_SKLEARN = ("numpy", "scipy", "scikit-learn", "safetensors", "emoji")
_SAFETENSORS = ("numpy", "safetensors")
_ONNX = ("numpy", "onnxruntime", "tokenizers", "emoji")
_TRANSFORMERS = ("torch", "transformers", "safetensors")
_TRANSFORMERS_NOTE = """
`predict_transformers.py` answers in full precision; `model/package/` is an ordinary transformers folder, which can be
fine-tuned further. Where `predict.py` uses the quantised graph, probabilities differ a little.
"""


def export_artefact(artefact: Path, target: Path) -> Manifest:
    """Write the version in `artefact` to the new folder `target`; what was exported.

    Written aside and renamed, so that `target` is whole or absent. Raises `FileExistsError` where it holds something,
    `FamilyError` for a version whose answers do not lie in its artefact, and `ArtefactCorrupt`.
    """
    manifest = verify_manifest(artefact)
    scripts, libraries = _parts(artefact, manifest)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty; name a new folder.")
    draft = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(artefact, draft / "model")
        shutil.copyfile(_ROOT / "text.py", draft / "preparation.py")
        for name, source in scripts.items():
            shutil.copyfile(_SCRIPTS / source, draft / name)
        pins = "".join(f"{name}=={metadata.version(name).partition('+')[0]}\n" for name in libraries)
        (draft / "requirements.txt").write_text(pins, encoding="utf-8")
        (draft / "README.md").write_text(_readme(manifest, scripts), encoding="utf-8")
        fsync_tree(draft)
        if target.exists():
            target.rmdir()
        draft.rename(target)
        fsync_path(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _parts(artefact: Path, manifest: Manifest) -> tuple[dict[str, str], tuple[str, ...]]:
    """{script: its source} and the libraries they need, by what the artefact holds."""
    serving = artefact / "serving"
    if manifest.family == "ensemble":
        return _parts_of_members(serving / "members")
    if (serving / "features.json").is_file():
        return {"predict.py": "predict_sklearn.py"}, _SKLEARN
    if not (serving / "model.onnx").is_file() and not (serving / "model.int8.onnx").is_file():
        raise FamilyError(
            f"A version of type {manifest.family} does not answer from its own artefact and cannot be exported."
        )
    if manifest.family != "encoder":
        return {"predict.py": "predict_onnx.py"}, _ONNX
    scripts = {"predict.py": "predict_onnx.py", "predict_transformers.py": "predict_transformers.py"}
    return scripts, (*_ONNX, *_TRANSFORMERS)


def _parts_of_members(folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """`_parts` of an ensemble: its own script, and one for each kind of its members."""
    scripts, libraries = {"predict.py": "predict_ensemble.py"}, list(_SAFETENSORS)
    for member in sorted(folder.iterdir()):
        is_sklearn = (member / "serving" / "features.json").is_file()
        kind, needed = ("sklearn", _SKLEARN) if is_sklearn else ("onnx", _ONNX)
        scripts[f"member_{kind}.py"] = f"predict_{kind}.py"
        libraries += needed
    return scripts, tuple(dict.fromkeys(libraries))


def _readme(manifest: Manifest, scripts: dict[str, str]) -> str:
    words = " ".join(f'"the {name}"' for name in manifest.input_fields)
    template = string.Template((_SCRIPTS / "README.md").read_text(encoding="utf-8"))
    return template.substitute(
        classifier=manifest.classifier,
        family=manifest.family,
        created=manifest.created,
        commands="\n".join(f"    python {name} {words}" for name in scripts if name.startswith("predict")),
        input=", ".join(f'"the {name}"' for name in manifest.input_fields),
        labels="\n".join(f"- `{label}`" for label in manifest.labels),
        transformers=_TRANSFORMERS_NOTE if "predict_transformers.py" in scripts else "",
    )
