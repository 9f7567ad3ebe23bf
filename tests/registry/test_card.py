"""`registry.card`: the model card and the confusion picture."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from matplotlib.image import imread

from registry.card import write_card, write_confusion_picture, write_picture
from registry.manifest import Manifest
from registry.metrics import score, score_sets

LABELS = ("joy", "fear", "spite|<b>")


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        classifier="emotion",
        family="encoder",
        labels=LABELS,
        input_fields=("text",),
        preprocessing=1,
        max_length=128,
        recipe={},
        calibration={"temperature": 1.25},
        metrics={},
        seed=13,
        snapshot_digest="a" * 64,
        libraries={"torch": "2.13.0"},
        parameters={"total": 22_700_000, "trainable": 11_000_000},
        base_model={"id": "minilm", "sha256": "b" * 64},
        created="2026-01-05T09:30:00+00:00",
    )


@pytest.fixture
def scores():
    truth = ["joy", "fear", "joy", "spite|<b>"] * 20
    probabilities = np.full((80, 3), 0.1)
    probabilities[np.arange(80), [LABELS.index(label) for label in truth]] = 0.8
    return score(LABELS, truth, probabilities)


def test_the_card_opens_with_a_header_that_tools_can_read(tmp_path, manifest, scores) -> None:
    _, header, body = write_card(tmp_path, manifest, scores).read_text("utf-8").split("---\n", 2)
    read = yaml.safe_load(header)
    assert read["license"] == "apache-2.0"
    assert read["base_model"] == "minilm"
    assert read["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 1.0}
    assert body.lstrip().startswith("# emotion")


def test_the_card_states_figures_intervals_data_and_licences(tmp_path, manifest, scores) -> None:
    counts = {"train": {"joy": 1200, "fear": 900}, "valid": {"joy": 40, "fear": 30}}
    notes = ("int8 kept: agrees on 99.3 % of the validation texts",)
    path = write_card(tmp_path, manifest, scores, description="Emotions.", counts=counts, notes=notes)
    text = path.read_text("utf-8")
    assert f"1.0000 ({scores.accuracy_interval[0]:.4f} to 1.0000)" in text
    assert "| joy | 1,200 | 40 |" in text
    assert "| total | 2,100 | 70 |" in text
    assert "T = 1.250" in text
    assert "22,700,000, of which 11,000,000 were trained" in text
    assert "99.3 %" in text
    assert "Base model `minilm`: apache-2.0." in text


def test_hostile_names_cannot_break_out_of_the_card(tmp_path, manifest, scores) -> None:
    text = write_card(tmp_path, manifest, scores, description="<script>x</script>\n# not a heading").read_text("utf-8")
    assert "<script>" not in text
    assert "\n# not" not in text
    assert r"spite\|&lt;b&gt;" in text


def test_a_version_that_was_not_evaluated_says_so(tmp_path, manifest) -> None:
    assert "has not been evaluated" in write_card(tmp_path, manifest, None).read_text("utf-8")


def test_an_unknown_base_model_sends_the_reader_to_its_publisher(tmp_path, manifest) -> None:
    from dataclasses import replace

    odd = replace(manifest, base_model={"id": "facebook/opt-1.3b", "sha256": "c" * 64}, max_length=None)
    text = write_card(tmp_path, odd, None).read_text("utf-8")
    assert "license: other" in text
    assert "publisher's page" in text


@pytest.mark.parametrize("k", [2, 8, 25, 60, 150])
def test_the_confusion_picture_grows_with_the_labels(tmp_path, k: int) -> None:
    labels = [f"label number {index} with a rather long name" for index in range(k)]
    confusion = np.random.default_rng(0).integers(0, 50, size=(k, k)).tolist()
    image = imread(write_confusion_picture(tmp_path / "confusion_matrix.png", labels, confusion))
    assert 300 < image.shape[0] < 3000


def test_labels_with_dollar_signs_and_arabic_are_drawn_as_they_are(tmp_path) -> None:
    labels = ["$\\frac$", "سعيد", "a$b$"]
    path = write_confusion_picture(tmp_path / "confusion_matrix.png", labels, [[3, 0, 1], [0, 0, 0], [1, 1, 9]])
    assert path.stat().st_size > 1000


def test_the_same_matrix_makes_the_same_picture(tmp_path) -> None:
    first = write_confusion_picture(tmp_path / "a.png", ["x", "y"], [[3, 1], [0, 4]])
    second = write_confusion_picture(tmp_path / "b.png", ["x", "y"], [[3, 1], [0, 4]])
    assert first.read_bytes() == second.read_bytes()


def sets_of(k: int = 3):
    """Figures of a multi-label version with k labels on 40 texts."""
    labels = [f"label ${index}$ with a rather long name" for index in range(k)]
    truth = [[labels[number % k], labels[number * 3 % k]] if number % 4 else [] for number in range(40)]
    return score_sets(labels, truth, np.random.default_rng(0).uniform(size=(40, k)))


def test_the_card_of_a_version_with_several_labels_says_how_they_are_given(tmp_path, manifest) -> None:
    scores = sets_of()
    calibration = {"temperature": 1.1, "multi_label": True, "thresholds": dict.fromkeys(scores.labels, 0.3)}
    manifest = replace(manifest, labels=scores.labels, calibration=calibration)
    first, _, third = scores.labels
    counts = {"train": {first: 3, f"{first}|{third}": 4, "|": 5}}
    text = write_card(tmp_path, manifest, scores, counts=counts).read_text("utf-8")
    assert "independent of each other" in text and "sum to 1" not in text and "always names a label" not in text
    assert f"| Exact match | {scores.accuracy:.4f}" in text and f"| Micro-F1 | {scores.micro_f1:.4f} |" in text
    data = text.split("## Training data")[1].split("## Figures")[0]
    assert [line.split("|")[2].strip() for line in data.splitlines() if line[:2] == "| "][2:] == [
        "7",
        "0",
        "4",
        "5",
        "12",
    ]
    assert text.count("| 0.3000 |") == 3


def test_the_card_states_the_threshold_of_a_target_precision(tmp_path, manifest, scores) -> None:
    manifest = replace(manifest, calibration={"temperature": 1.0, "threshold": 0.91})
    assert "Under a confidence of 0.9100 it abstains" in write_card(tmp_path, manifest, scores).read_text("utf-8")


@pytest.mark.parametrize("k", [3, 40, 150])
def test_several_labels_are_drawn_as_bars(tmp_path, k: int) -> None:
    image = imread(write_picture(tmp_path / "confusion_matrix.png", sets_of(k)))
    assert 150 < image.shape[0] < 3000
