"""The model card and the confusion picture of a version. Neither ever holds a text that a person wrote."""

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from registry.calibration import DEFAULT_THRESHOLD
from registry.labels import NOTHING, label_set
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
    if manifest.base_model and not _is_code(manifest):
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
    if _is_multi_label(manifest):
        does = f"Gives texts any number of {len(manifest.labels)} labels, or none."
        answers = "they are independent of each other, and a label is given from its own threshold on"
    else:
        does, answers = f"Sorts texts into {len(manifest.labels)} labels.", "they sum to 1"
    return (
        f"## What it does\n\n{does} It is given {fields}{length}, and answers with a probability for each label; "
        f"{answers}.\n\n{_table(('Label', 'Meaning'), rows)}"
    )


def _data(manifest: Manifest, counts: Mapping[str, Mapping[str, int]]) -> str:
    digest = f"`{manifest.snapshot_digest}`" if manifest.snapshot_digest else "not recorded"
    lines = ["## Training data", f"Digest of the snapshot (SHA-256 over its items): {digest}."]
    if counts:
        shown = [_texts_per_label(split) if _is_multi_label(manifest) else split for split in counts.values()]
        rows = [(label, *(f"{split.get(label, 0):,}" for split in shown)) for label in manifest.labels]
        if _is_multi_label(manifest):
            lines.append("A text with several labels counts under each of them.")
            rows.append(("none of them", *(f"{split.get(NOTHING, 0):,}" for split in counts.values())))
        rows.append(("total", *(f"{sum(split.values()):,}" for split in counts.values())))
        lines.append(_table(("Label", *counts), rows))
    return "\n\n".join(lines)


def _texts_per_label(sets: Mapping[str, int]) -> Counter[str]:
    """From texts per set of labels to texts per label."""
    texts: Counter[str] = Counter()
    for text, count in sets.items():
        texts.update(dict.fromkeys(label_set(text), count))
    return texts


def _is_multi_label(manifest: Manifest) -> bool:
    return bool(manifest.calibration.get("multi_label"))


def _figures(scores: Scores | None, digest: str | None) -> str:
    if scores is None:
        return "## Figures\n\nThis version has not been evaluated."
    exact = ("Exact match", "Brier score (0-1)") if scores.multi_label else ("Accuracy", "Brier score (0-2)")
    micro = [("Micro-F1", f"{scores.micro_f1:.4f}")] if scores.multi_label else []
    overall = [
        (exact[0], _with_interval(scores.accuracy, scores.accuracy_interval)),
        ("Macro-F1", _with_interval(scores.macro_f1, scores.macro_f1_interval)),
        *micro,
        ("Macro precision", f"{scores.macro_precision:.4f}"),
        ("Macro recall", f"{scores.macro_recall:.4f}"),
        ("Log loss (nats)", f"{scores.log_loss:.4f}"),
        (exact[1], f"{scores.brier:.4f}"),
        (f"Expected calibration error ({ECE_BINS} bins)", f"{scores.ece:.4f}"),
    ]
    per_label = [
        (label, *(f"{row[name]:.4f}" for name in ("precision", "recall", "f1")), f"{row['support']:,}")
        for label, row in scores.per_label.items()
    ]
    texts = f"{scores.n:,} held-out texts" + (f" (digest `{digest}`)" if digest else "")
    several = (
        " An exact match answers a text's whole set of labels; log loss, Brier score and calibration error are means "
        "over all pairs of a text and a label."
    )
    picture = "Right, missed and wrongly given labels" if scores.multi_label else "Confusion matrix"
    return "\n\n".join(
        [
            "## Figures",
            f"On {texts} that took no part in training. Parentheses hold 95 % intervals: Wilson's for "
            f"{exact[0].lower()}, a bootstrap's for macro-F1.{several if scores.multi_label else ''}",
            _table(("Figure", "Value"), overall),
            _table(("Label", "Precision", "Recall", "F1", "Texts"), per_label),
            f"![{picture}]({PICTURE_NAME})",
        ]
    )


def _calibration(manifest: Manifest, scores: Scores | None) -> str:
    if _is_code(manifest):
        return "## Calibration\n\nConfidence is what the code says; it was not calibrated."
    temperature = manifest.calibration.get("temperature")
    how = f"temperature scaling, T = {temperature:.3f}" if isinstance(temperature, float | int) else "not recorded"
    error = f" The expected calibration error on the held-out texts is {scores.ece:.4f}." if scores else ""
    return f"## Calibration\n\nConfidence: {how}, fitted on validation texts.{error}{_thresholds(manifest)}"


def _thresholds(manifest: Manifest) -> str:
    """From which probability on a version answers, where it does not leave that to the classifier's policy."""
    if _is_multi_label(manifest):
        thresholds = manifest.calibration.get("thresholds", {})
        rows = [(label, f"{thresholds.get(label, DEFAULT_THRESHOLD):.4f}") for label in manifest.labels]
        return f"\n\n{_table(('Label', 'Given from'), rows)}"
    threshold = manifest.calibration.get("threshold")
    return "" if threshold is None else f" Under a confidence of {threshold:.4f} it abstains, for its target precision."


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
        rows.insert(
            1,
            (
                "Code" if _is_code(manifest) else "Base model",
                f"{manifest.base_model['id']}, SHA-256 {manifest.base_model['sha256']}",
            ),
        )
    remarks = "".join(f"\n- {_plain(note)}" for note in notes)
    return f"## How it was made\n\n{_table(('What', 'Value'), rows)}" + (f"\n{remarks}" if remarks else "")


def _limits(manifest: Manifest) -> str:
    always = (
        "It always names a label, even for a text that fits none; what is under the confidence floor needs a person."
    )
    lines = [
        "It answers by code that is not part of the artefact; what that code reads and imports is not hashed."
        if _is_code(manifest)
        else "It has learnt from texts like those counted above; for other languages and subjects its figures do not "
        "hold.",
        *([] if _is_multi_label(manifest) else [always]),
        "Labels reflect the judgement of those who gave them. Do not base decisions about people on it alone.",
    ]
    if manifest.max_length:
        lines.append(f"What follows the first {manifest.max_length} tokens of a text has no influence on the answer.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licences(manifest: Manifest) -> str:
    lines = ["- What training added here: MIT, unless the operator of this installation states otherwise."]
    if _is_code(manifest):
        return "## Licences\n\n- The code is this installation's own; its authors say how it may be used."
    if manifest.base_model:
        licence = _licence(manifest)
        stated = "see its publisher's page before passing this model on" if licence == "other" else licence
        lines.append(f"- Base model `{_plain(manifest.base_model['id'])}`: {stated}.")
    return "## Licences\n\n" + "\n".join(lines)


def _is_code(manifest: Manifest) -> bool:
    """A version of type custom: `base_model` names the code and the hash of its file."""
    return manifest.family == "custom"


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


def write_picture(path: Path, scores: Scores) -> Path:
    """Draw what was answered right and wrong as a PNG: a confusion matrix, or bars where texts have several labels.

    Drawn without pyplot, whose global state is not safe in threads.
    """
    if scores.multi_label:
        return write_label_bars(path, scores.per_label)
    return write_confusion_picture(path, scores.labels, scores.confusion)


def write_label_bars(path: Path, per_label: Mapping[str, Mapping[str, float]]) -> Path:
    """A bar per label: texts that got it rightly, texts where it was missed, texts that got it wrongly."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    right = [round(row["recall"] * row["support"]) for row in per_label.values()]
    missed = [int(row["support"]) - hits for row, hits in zip(per_label.values(), right, strict=True)]
    wrong = [int(row["given"]) - hits for row, hits in zip(per_label.values(), right, strict=True)]
    rows = range(len(per_label))
    figure = Figure(figsize=(8.0, min(1.6 + 0.32 * len(per_label), 24.0)), dpi=110)  # inches
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    left = [0] * len(per_label)
    bars = (("right", right, "#2a6f97"), ("missed", missed, "#c9d6df"), ("wrongly given", wrong, "#d1495b"))
    for name, counts, colour in bars:
        axes.barh(rows, counts, left=left, label=name, color=colour)
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axes.set(xlabel="texts")
    axes.invert_yaxis()
    if len(per_label) <= _TICKED_LABELS:
        axes.set_yticks(rows, _shortened(per_label), fontsize=10 if len(per_label) <= _COUNTED_LABELS else 6)
    else:
        axes.set(yticks=[])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    figure.legend(loc="outside upper center", ncols=len(bars), frameon=False)
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    return path


def write_confusion_picture(path: Path, labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Path:
    """Draw `confusion` (rows: truth, columns: answer) as a PNG: colour is the share of the row, numbers are texts.

    Up to 25 labels carry their counts.
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
    names = _shortened(labels)
    size = 10 if len(labels) <= _COUNTED_LABELS else 6
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)


def _shortened(labels: Iterable[str]) -> list[str]:
    return [label if len(label) <= _LONGEST_TICK else label[: _LONGEST_TICK - 1] + "…" for label in labels]
