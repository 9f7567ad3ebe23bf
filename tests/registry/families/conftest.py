"""Artefacts that the family tests share, built once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.registry.families.material import SEVERAL, Built, build, sentences, settings_of
from tests.registry.families.tiny import write_tiny_bert


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, 32 wide, with a WordPiece vocabulary of whole words and single letters.

    In `wide` below it lies one of a single layer, 64 wide, which tells texts apart as it is.
    """
    words = {word for told in sentences(400) for word in told.fields[0].lower().split()}
    folder = tmp_path_factory.mktemp("tiny-bert")
    (folder / "wide").mkdir()
    write_tiny_bert(folder / "wide", sorted(words), layers=1, width=64)
    return write_tiny_bert(folder, sorted(words))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Callable[[str, str], Built]:
    """Sealed artefacts by family and kind of input, each built once; tests must not alter them."""
    made: dict[tuple[str, str], Built] = {}

    def once(name: str, kind: str = "text") -> Built:
        if (name, kind) not in made:
            fields = ("question", "context") if kind == "pair" else ("text",)
            folder = tmp_path_factory.mktemp(f"{name}-{kind}")
            settings, data = settings_of(name, tiny_encoder), {}
            if kind == "several":
                settings, data = (*settings, "training_config.num_epochs=16"), SEVERAL
            made[name, kind] = build(name, folder, *settings, input_fields=fields, **data)
        return made[name, kind]

    return once
