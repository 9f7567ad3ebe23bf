"""The model card and the confusion picture of a version. Neither ever holds a text that a person wrote."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from registry.manifest import Manifest
from registry.metrics import ECE_BINS, Scores

CARD_NAME = "model_card.md"
PICTURE_NAME = "confusion_matrix.png"

# Licences of base models as their publishers state them; others are named with a request to look.
_BASE_LICENCES = {
    "minilm": "apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "distilbert-base-uncased": "apache-2.0",
    "distilbert/distilbert-base-uncased": "apache-2.0",
    "roberta-base": "mit",
    "roberta-large": "mit",
    "FacebookAI/roberta-base": "mit",
    "FacebookAI/roberta-large": "mit",
}

_COUNTED_LABELS = 25  # beyond so many, counts in the cells of the picture could not be read
_TICKED_LABELS = 120
_LONGEST_TICK = 24


def write_card(
    folder: Path,
    manifest: Manifest,
    scores: Scores | None,
    *,
    description: str = "",
    label_descriptions: Mapping[str, str] | None = None,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    evaluation_digest: str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write `model_card.md` below `folder` (before it is sealed) and return its path.

    `counts` {split: {label: texts}}; `scores` those of the held-out texts with `evaluation_digest`; `notes` are what
    training has to say, such as why a quantised model was not kept.
    """
    sections = [
        _header(manifest, scores),
        f"# {_plain(manifest.classifier)}\n\n{_plain(description)}".rstrip(),
        _purpose(manifest, label_descriptions or {}),
        _data(manifest, counts or {}),
        _figures(scores, evaluation_digest),
        _calibration(manifest, scores),
        _making(manifest, notes),
        _limits(manifest),
        _licences(manifest),
    ]
    path = folder / CARD_NAME
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _header(manifest: Manifest, scores: Scores | None) -> str:
    """The YAML block that Hugging Face's hub and tools read."""
    header: dict[str, Any] = {
        "license": _licence(manifest) if manifest.base_model else "mit",
        "library_name": "kalimtak",
        "pipeline_tag": "text-classification",
        "tags": ["text-classification", "kalimtak", manifest.family],
    }
    if manifest.base_model:
        header["base_model"] = manifest.base_model["id"]
    if scores:
        figures = {"accuracy": scores.accuracy, "f1": scores.macro_f1}
        result = {
            "task": {"type": "text-classification"},
            "dataset": {"name": "held-out texts of this installation", "type": "private"},
            "metrics": [{"type": name, "value": round(value, 4)} for name, value in figures.items()],
        }
        header["model-index"] = [{"name": manifest.classifier, "results": [result]}]
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---"


def _purpose(manifest: Manifest, descriptions: Mapping[str, str]) -> str:
    fields = " and ".join(f"`{_plain(name)}`" for name in manifest.input_fields)
    length = f", of which it reads the first {manifest.max_length} tokens" if manifest.max_length else ""
    rows = [(label, descriptions.get(label, "")) for label in manifest.labels]
    return (
        "## What it does\n\n"
        f"Sorts texts into {len(manifest.labels)} labels. It is given {fields}{length}, and answers with a probability "
        f"for each label; they sum to 1.\n\n{_table(('Label', 'Meaning'), rows)}"
    )


def _data(manifest: Manifest, counts: Mapping[str, Mapping[str, int]]) -> str:
    digest = f"`{manifest.snapshot_digest}`" if manifest.snapshot_digest else "not recorded"
    lines = ["## Training data", f"Digest of the snapshot (SHA-256 over its items): {digest}."]
    if counts:
        rows = [(label, *(f"{split.get(label, 0):,}" for split in counts.values())) for label in manifest.labels]
        rows.append(("total", *(f"{sum(split.values()):,}" for split in counts.values())))
        lines.append(_table(("Label", *counts), rows))
    return "\n\n".join(lines)


def _figures(scores: Scores | None, digest: str | None) -> str:
    if scores is None:
        return "## Figures\n\nThis version has not been evaluated."
    overall = [
        ("Accuracy", _with_interval(scores.accuracy, scores.accuracy_interval)),
        ("Macro-F1", _with_interval(scores.macro_f1, scores.macro_f1_interval)),
        ("Macro precision", f"{scores.macro_precision:.4f}"),
        ("Macro recall", f"{scores.macro_recall:.4f}"),
        ("Log loss (nats)", f"{scores.log_loss:.4f}"),
        ("Brier score (0-2)", f"{scores.brier:.4f}"),
        (f"Expected calibration error ({ECE_BINS} bins)", f"{scores.ece:.4f}"),
    ]
    per_label = [
        (label, *(f"{row[name]:.4f}" for name in ("precision", "recall", "f1")), f"{row['support']:,}")
        for label, row in scores.per_label.items()
    ]
    texts = f"{scores.n:,} held-out texts" + (f" (digest `{digest}`)" if digest else "")
    return "\n\n".join(
        [
            "## Figures",
            f"On {texts} that took no part in training. Parentheses hold 95 % intervals: Wilson's for accuracy, a "
            "bootstrap's for macro-F1.",
            _table(("Figure", "Value"), overall),
            _table(("Label", "Precision", "Recall", "F1", "Texts"), per_label),
            f"![Confusion matrix]({PICTURE_NAME})",
        ]
    )


def _calibration(manifest: Manifest, scores: Scores | None) -> str:
    temperature = manifest.calibration.get("temperature")
    how = f"temperature scaling, T = {temperature:.3f}" if isinstance(temperature, float | int) else "not recorded"
    error = f" The expected calibration error on the held-out texts is {scores.ece:.4f}." if scores else ""
    return f"## Calibration\n\nConfidence: {how}, fitted on validation texts.{error}"


def _making(manifest: Manifest, notes: Sequence[str]) -> str:
    total, trainable = manifest.parameters.get("total", 0), manifest.parameters.get("trainable", 0)
    rows = [
        ("Family", manifest.family),
        ("Parameters", f"{total:,}, of which {trainable:,} were trained"),
        ("Seed", str(manifest.seed)),
        ("Made", manifest.created),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items()))),
    ]
    if manifest.base_model:
        rows.insert(1, ("Base model", f"{manifest.base_model['id']}, SHA-256 {manifest.base_model['sha256']}"))
    remarks = "".join(f"\n- {_plain(note)}" for note in notes)
    return f"## How it was made\n\n{_table(('What', 'Value'), rows)}" + (f"\n{remarks}" if remarks else "")


def _limits(manifest: Manifest) -> str:
    lines = [
        "It has learnt from texts like those counted above; for other languages and subjects its figures do not hold.",
        "It always names a label, even for a text that fits none; what is under the confidence floor needs a person.",
        "Labels reflect the judgement of those who gave them. Do not base decisions about people on it alone.",
    ]
    if manifest.max_length:
        lines.append(f"What follows the first {manifest.max_length} tokens of a text has no influence on the answer.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licences(manifest: Manifest) -> str:
    lines = ["- What training added here: MIT, unless the operator of this installation states otherwise."]
    if manifest.base_model:
        licence = _licence(manifest)
        stated = "see its publisher's page before passing this model on" if licence == "other" else licence
        lines.append(f"- Base model `{_plain(manifest.base_model['id'])}`: {stated}.")
    return "## Licences\n\n" + "\n".join(lines)


def _licence(manifest: Manifest) -> str:
    """The base model's licence as the hub spells it; `other` where this file does not know it."""
    return _BASE_LICENCES.get(manifest.base_model["id"], "other") if manifest.base_model else "mit"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that neither Markdown nor HTML reads as anything else, on one line."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def write_confusion_picture(path: Path, labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Path:
    """Draw `confusion` (rows: truth, columns: answer) as a PNG: colour is the share of the row, numbers are texts.

    Drawn without pyplot, whose global state is not safe in threads. Up to 25 labels carry their counts.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(confusion, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.6 + 0.55 * len(labels), 24.0)  # inches
    figure = Figure(figsize=(side + 0.8, side), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the true label")
    axes.set(xlabel="answered", ylabel="true label")
    _tick(axes, labels)
    if len(labels) <= _COUNTED_LABELS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    return path


def _tick(axes: Any, labels: Sequence[str]) -> None:
    """Name rows and columns; a label may hold `$`, which must not be typeset as a formula."""
    if len(labels) > _TICKED_LABELS:
        axes.set(xticks=[], yticks=[])
        return
    names = [label if len(label) <= _LONGEST_TICK else label[: _LONGEST_TICK - 1] + "…" for label in labels]
    size = 10 if len(labels) <= _COUNTED_LABELS else 6
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
