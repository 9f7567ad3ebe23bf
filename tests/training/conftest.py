"""A classifier with enough examples to learn from in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # Django is set up after this file is read
    from registry.models import Classifier
    from training.models import TrainingDataItem

WORDS = {"glad": "sunny smile laugh party", "sad": "tears alone grave loss", "calm": "lake tea quiet breath"}
FILLERS = ("today", "again", "really", "then", "with", "my", "old", "friend", "and", "neighbour", "at", "home", "too")


def sentence(label: str, number: int) -> str:
    """A sentence of its own for each number, with words that give its label away."""
    telling = WORDS[label].split()
    filler = " ".join(FILLERS[(number * step) % len(FILLERS)] for step in (1, 3, 5))
    return f"{telling[number % 4]} {filler} {telling[number // 4 % 4]} {number}"


@pytest.fixture
def store(settings, tmp_path: Path) -> Path:
    """An empty models store and scratch folder of this test's own."""
    settings.KALIMTAK_MODELS_STORE = tmp_path / "store"
    settings.KALIMTAK_VAR = tmp_path / "var"
    return tmp_path / "store"


@pytest.fixture
def mood(store: Path) -> "Classifier":
    """A classic classifier without any items."""
    from registry.models import Classifier

    return Classifier.objects.create(
        slug="mood",
        name="Mood",
        family="classic",
        labels=list(WORDS),
        input_fields=["text"],
        is_default=True,
        policy={"gate": {"min_samples": 5}},
    )


@pytest.fixture
def teach() -> "Callable[..., list[TrainingDataItem]]":
    """Give a classifier `count` approved items per label, numbered from `start`."""
    from training.models import TrainingDataItem

    def teach(classifier: "Classifier", count: int = 30, start: int = 0, **values: object) -> "list[TrainingDataItem]":
        return TrainingDataItem.objects.bulk_create(
            TrainingDataItem(
                classifier=classifier,
                fields={"text": sentence(label, number)},
                label=label,
                content_hash=f"{index:032x}{number:032x}",
                **{"status": "approved", **values},
            )
            for index, label in enumerate(WORDS)
            for number in range(start, start + count)
        )

    return teach


@pytest.fixture
def taught_mood(mood: "Classifier", teach: "Callable[..., list[TrainingDataItem]]") -> "Classifier":
    teach(mood)
    return mood
