"""Probes: sentences of our own with the answers a package gave when it was built, so that any process can compare."""

import json
from pathlib import Path

import numpy as np

from registry import families
from registry.families.base import Fields, Predictor

PROBES_NAME = "probes.json"
TOLERANCE = 1e-4  # of a probability

_SENTENCES = (
    "The train was late again and nobody told us why.",
    "I could not be happier with how the garden turned out!",
    "Please move my appointment to Thursday morning.",
    "WHY does this keep happening???",
    "not bad, not bad at all",
    "الخدمة ممتازة وأنا سعيد جدا اليوم",
    "هل يمكنني إلغاء الطلب من فضلك؟",
    "😀🎉 best day ever ❤️",
    "🙄",
    "Grüße aus Köln, es war schön.",
    "今天的天气很好",
    "42",
    "...",
    " ",
    "\u200b\t a\x00b  c ",
    "a word and another word, " * 400,
)


def write_probes(folder: Path, predictor: Predictor) -> None:
    """Write `probes.json` below `folder` with what `predictor` answers now."""
    inputs = probe_inputs(len(predictor.input_fields))
    probes = [
        {"fields": list(fields), "probabilities": [float(value) for value in answer.probabilities]}
        for fields, answer in zip(inputs, predictor.predict(inputs), strict=True)
    ]
    described = {"labels": list(predictor.labels), "probes": probes}
    (folder / PROBES_NAME).write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def check_probes(folder: Path) -> list[str]:
    """Load `folder` (its files already verified) and answer its probes again; one line for each that differs."""
    return compare_probes(folder, families.load(folder, verify=False))


def compare_probes(folder: Path, predictor: Predictor, *, tolerance: float = TOLERANCE) -> list[str]:
    """A line for each probe of `folder` that `predictor` answers otherwise than it was answered when it was built."""
    described = json.loads((folder / PROBES_NAME).read_text(encoding="utf-8"))
    if list(predictor.labels) != described["labels"]:
        return [f"{PROBES_NAME} was written for other labels than the manifest's"]
    if not described["probes"]:
        return [f"{PROBES_NAME} holds no probe"]
    answers = predictor.predict([tuple(probe["fields"]) for probe in described["probes"]])
    problems = []
    for number, (probe, answer) in enumerate(zip(described["probes"], answers, strict=True), start=1):
        expected = np.asarray(probe["probabilities"], dtype=np.float64)
        same_shape = expected.shape == answer.probabilities.shape
        distance = float(np.abs(expected - answer.probabilities).max()) if same_shape else float("inf")
        if not distance <= tolerance:
            problems.append(f"probe {number} is answered differently: probabilities differ by {distance:.2g}")
    return problems


def probe_inputs(fields: int) -> list[Fields]:
    """Every sentence in every field once."""
    count = len(_SENTENCES)
    return [tuple(_SENTENCES[(index + shift) % count] for shift in range(fields)) for index in range(count)]
