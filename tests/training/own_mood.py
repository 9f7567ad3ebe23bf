"""Code of an installation's own, as models.yaml names it: `tests.training.own_mood:load`."""

from typing import Any

from tests.training.conftest import WORDS


class Mood:
    def predict(self, rows: list[dict[str, str]]) -> list[dict[str, float]]:
        return [
            {label: 0.1 + sum(word in words.split() for word in row["text"].split()) for label, words in WORDS.items()}
            for row in rows
        ]


def load(config: dict[str, Any]) -> Mood:
    return Mood()
