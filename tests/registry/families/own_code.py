"""What an installation's own code may look like: `loader: tests.registry.families.own_code:load`."""

from typing import Any

TELLING = {
    "fruit": ("apple", "banana", "cherry", "mango", "plum", "grape"),
    "vehicle": ("car", "bicycle", "train", "lorry", "tractor", "boat", "automobile"),
    "weather": ("rain", "snow", "storm", "sunshine", "fog", "hail"),
}


class Keywords:
    """Counts telling words in the last field."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.labels, self.field = config["labels"], config["input_fields"][-1]

    def predict(self, rows: list[dict[str, str]]) -> list[dict[str, float]]:
        return [self.answer(row[self.field].split()) for row in rows]

    def answer(self, words: list[str]) -> dict[str, float]:
        counts = {label: 0.1 + sum(word in TELLING.get(label, ()) for word in words) for label in self.labels}
        total = sum(counts.values())
        return {label: count / total for label, count in counts.items()}


def load(config: dict[str, Any]) -> Keywords:
    return Keywords(config)
