"""`registry.labels`: sets of labels as texts."""

import pytest

from registry.labels import label_set, label_text, label_text_of


@pytest.mark.parametrize("labels", [(), ("joy",), ("joy", "love"), ("sehr gut", "schön", "فرح")])
def test_a_set_is_read_back_from_its_text(labels: tuple[str, ...]) -> None:
    assert label_set(label_text(labels)) == labels


def test_nothing_has_a_text_of_its_own() -> None:
    assert label_text(()) == "|"
    assert label_set("") == ()


def test_a_set_is_written_in_the_order_of_the_classifier() -> None:
    known = ("joy", "love", "fear")
    assert label_text_of(["fear", "joy", "fear"], known) == "joy|fear"
    with pytest.raises(ValueError, match="not among the labels: anger, envy"):
        label_text_of(["joy", "envy", "anger"], known)
