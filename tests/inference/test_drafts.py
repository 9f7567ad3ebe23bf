"""Long outputs that survive what interrupts them."""

import json

import pytest

from inference import drafts
from inference.drafts import draft_of
from kalimtak.core.errors import Conflict, InvalidInput

BELONGS = {"input": "abc", "version": "emotion/1"}


class Killed(BaseException):
    """What happens to a process that is killed: nothing of it runs any more."""


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.csv"


def begin(target, lines, *, belongs=BELONGS, unnoted="", ends=Killed):
    """Write `lines`, save, write what is `unnoted`, and die."""
    said = []
    with pytest.raises(ends), draft_of(target, belongs, said.append) as draft:
        before = draft.reached
        draft.stream.write("".join(lines))
        draft.save(before.rows + len(lines), 1, ("text", "label"), now=True)
        draft.stream.write(unnoted)
        draft.stream.flush()
        raise ends("it ends here")
    return before, said


def test_what_was_noted_is_kept_and_a_torn_row_is_not(target):
    begin(target, ["one\n", "two\n"], unnoted="thr")
    before, said = begin(target, ["three\n"])
    assert (before.rows, before.refused, before.columns) == (2, 1, ("text", "label"))
    assert said == ["Going on after row 2, where it stopped before."]
    with draft_of(target, BELONGS, said.append) as draft:
        assert draft.reached.rows == 3
        draft.stream.write("four\n")
    assert target.read_text() == "one\ntwo\nthree\nfour\n"
    assert [path.name for path in target.parent.iterdir()] == ["out.csv"]


def test_nothing_is_saved_between_two_seconds(target, monkeypatch):
    with draft_of(target, BELONGS, print) as draft:
        draft.stream.write("one\n")
        draft.save(1, 0, ())
        note = target.with_name("out.csv.part.json")
        assert not note.exists()
        monkeypatch.setattr(drafts, "SAVE_SECONDS", 0.0)
        draft.save(1, 0, ())
        assert json.loads(note.read_text())["reached"]["rows"] == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda part, note: note.unlink(), "does not say how far"),
        (lambda part, note: note.write_text("{"), "does not say how far"),
        (lambda part, note: note.write_text(note.read_text().replace("abc", "xyz")), "another input"),
        (lambda part, note: note.write_text(note.read_text().replace('"rows": 2', '"rows": -2')), "does not say"),
        (lambda part, note: part.write_text("one\n"), "shorter"),
    ],
)
def test_what_cannot_be_trusted_is_answered_anew(target, spoil, reason):
    begin(target, ["one\n", "two\n"])
    spoil(target.with_name("out.csv.part"), target.with_name("out.csv.part.json"))
    before, (said,) = begin(target, [])
    assert before.rows == 0 and reason in said and "anew" in said
    assert target.with_name("out.csv.part").read_text() == ""


def test_a_fresh_start_is_no_news(target):
    assert begin(target, ["one\n"])[1] == []


def test_an_input_that_can_never_be_read_leaves_nothing(target):
    begin(target, ["one\n"], ends=InvalidInput)
    assert list(target.parent.iterdir()) == []


def test_two_processes_do_not_write_one_draft(target):
    with (
        draft_of(target, BELONGS, print),
        pytest.raises(Conflict, match="Another process"),
        draft_of(target, BELONGS, print),
    ):
        raise AssertionError("both had it")
    assert target.exists()
