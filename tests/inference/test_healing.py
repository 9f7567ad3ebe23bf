"""`inference.healing`: who answers a text, by pure models whose every answer the test writes down."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from inference.healing import Cascade, Healing, Helper, Helpers, Memory, key_of
from registry.calibration import Calibration
from registry.families.base import Answer, Fields

LABELS = ("joy", "sadness", "anger")
FLOOR = 0.5
Script = Mapping[str, Sequence[float] | Exception]


class Scripted:
    """Answers each text as it is told, and remembers what it was asked."""

    def __init__(
        self, script: Script, labels: tuple[str, ...] = LABELS, calibration: Calibration | None = None
    ) -> None:
        self.labels, self.input_fields = labels, ("text",)
        self.calibration = calibration or Calibration()
        self.script = script
        self.asked: list[str] = []

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        answers = []
        for (text,) in inputs:
            self.asked.append(text)
            scores = self.script[text]
            if isinstance(scores, Exception):
                raise scores
            answers.append(Answer(np.array(scores, np.float32), truncated=False))
        return answers


def healing(main: Scripted, floor: float = FLOOR, **helpers: object) -> Healing:
    return Healing(main, Helpers(**helpers), floor=floor)


def helper(script: Script, ref: str = "second/1", **more: object) -> Helper:
    return Helper(ref, Scripted(script, **more))


def answer(predictor: Healing, text: str) -> Answer:
    return predictor.predict([(text,)])[0]


def told(answer: Answer) -> tuple[str, str, str, tuple[str, ...]]:
    return LABELS[int(answer.probabilities.argmax())], answer.source, answer.by, answer.flags


SURE, UNSURE = [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]
DETECTOR = ("sincere", "sarcastic")


# The backup --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (SURE, [0.0, 0.0, 1.0], ("joy", "model", "", ())),
        (UNSURE, [0.1, 0.1, 0.8], ("anger", "backup", "second/1", ())),
        (UNSURE, [0.2, 0.39, 0.41], ("anger", "backup", "second/1", ())),
        (UNSURE, [0.3, 0.3, 0.4], ("joy", "model", "", ())),  # no surer
        (UNSURE, [0.33, 0.33, 0.34], ("joy", "model", "", ())),
        (UNSURE, ValueError("broken"), ("joy", "model", "", ())),
        (ValueError("broken"), [0.33, 0.33, 0.34], ("anger", "backup", "second/1", ())),
        ([np.nan, 0.5, 0.5], SURE, ("joy", "backup", "second/1", ())),
    ],
)
def test_the_backup_answers_what_the_model_cannot(first, second, expected) -> None:
    predictor = healing(Scripted({"x": first}), backup=helper({"x": second}))
    assert told(answer(predictor, "x")) == expected


def test_a_sure_model_costs_no_second_opinion() -> None:
    backup = helper({})
    assert told(answer(healing(Scripted({"x": SURE}), backup=backup), "x"))[1] == "model"
    assert backup.predictor.asked == []


def test_a_version_trained_for_a_target_precision_doubts_by_its_own_threshold() -> None:
    main = Scripted({"x": SURE}, calibration=Calibration(threshold=0.95))
    predictor = healing(main, backup=helper({"x": [0.0, 0.04, 0.96]}))
    assert told(answer(predictor, "x"))[:2] == ("anger", "backup")


def test_one_text_that_breaks_the_model_costs_its_neighbours_nothing() -> None:
    main = Scripted({"a": SURE, "boom": ValueError("boom"), "b": [0.05, 0.9, 0.05]})
    predictor = healing(main, backup=helper({"boom": [0.1, 0.1, 0.8]}))
    answers = predictor.predict([("a",), ("boom",), ("b",)])
    assert [told(each)[:2] for each in answers] == [("joy", "model"), ("anger", "backup"), ("sadness", "model")]


@pytest.mark.parametrize("backup", [None, {"x": RuntimeError("broken too")}])
def test_where_nobody_can_answer_the_models_own_error_is_raised(backup: Script | None) -> None:
    predictor = healing(Scripted({"x": ValueError("the first")}), backup=helper(backup) if backup else None, cache=5)
    with pytest.raises(ValueError, match="the first"):
        answer(predictor, "x")


def test_a_backup_with_fewer_labels_in_another_order_gives_the_others_nothing() -> None:
    backup = helper({"x": [0.8, 0.2]}, labels=("anger", "joy"))
    given = answer(healing(Scripted({"x": UNSURE}), backup=backup), "x")
    assert given.probabilities.tolist() == pytest.approx([0.2, 0.0, 0.8])
    assert told(given)[1:3] == ("backup", "second/1")


@pytest.mark.parametrize(
    ("first", "second", "source"),
    [
        ([0.6, 0.1, 0.1], [0.9, 0.9, 0.9], "model"),
        ([0.1] * 3, [0.1, 0.6, 0.1], "backup"),
        ([0.2] * 3, [0.4] * 3, "model"),
    ],
)
def test_of_several_labels_the_backup_answers_where_it_alone_gives_one(first, second, source) -> None:
    several = Calibration(multi_label=True)
    main = Scripted({"x": first}, calibration=several)
    assert answer(healing(main, backup=helper({"x": second}, calibration=several)), "x").source == source


# Sarcasm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sarcastic", "second", "expected"),
    [
        (0.9, [0.1, 0.1, 0.8], ("anger", "backup", "second/1", ("sarcasm",))),
        (0.9, SURE, ("joy", "backup", "second/1", ("sarcasm",))),
        (0.4, [0.1, 0.1, 0.8], ("anger", "backup", "second/1", ("sarcasm",))),  # suspected, and they disagree
        (0.4, SURE, ("joy", "model", "", ())),  # suspected, and they agree
        (0.1, [0.1, 0.1, 0.8], ("joy", "model", "", ())),
        (0.9, ValueError("broken"), ("joy", "model", "", ("sarcasm",))),
    ],
)
def test_what_is_sarcastic_goes_to_the_backup(sarcastic, second, expected) -> None:
    detector = helper({"x": [1 - sarcastic, sarcastic]}, "sarcasm/1", labels=DETECTOR)
    predictor = healing(Scripted({"x": SURE}), backup=helper({"x": second}), sarcasm=detector)
    assert told(answer(predictor, "x")) == expected


def test_a_detector_that_fails_finds_nothing() -> None:
    detector = helper({"x": ValueError("broken")}, "sarcasm/1", labels=DETECTOR)
    predictor = healing(Scripted({"x": SURE}), backup=helper({}), sarcasm=detector)
    assert told(answer(predictor, "x")) == ("joy", "model", "", ())


# The cascade -------------------------------------------------------------------------------------------------------


def cheap(script: Script, threshold: float = 0.8) -> Cascade:
    return Cascade("cheap/1", Scripted(script), threshold)


def test_the_cheap_model_answers_what_it_is_sure_of_and_the_main_one_the_rest() -> None:
    main = Scripted({"hard": [0.1, 0.8, 0.1]})
    predictor = healing(main, cascade=cheap({"easy": SURE, "hard": [0.79, 0.2, 0.01]}))
    answers = predictor.predict([("easy",), ("hard",)])
    assert [told(each)[:3] for each in answers] == [("joy", "cascade", "cheap/1"), ("sadness", "model", "")]
    assert main.asked == ["hard"]


def test_a_cheap_model_that_fails_leaves_everything_to_the_main_one() -> None:
    predictor = healing(Scripted({"x": SURE}), cascade=cheap({"x": ValueError("broken")}))
    assert told(answer(predictor, "x"))[1] == "model"


def test_what_may_be_sarcastic_is_not_answered_early() -> None:
    detector = helper({"x": [0.6, 0.4]}, "sarcasm/1", labels=DETECTOR)
    first = cheap({"x": SURE})
    predictor = healing(Scripted({"x": SURE}), cascade=first, sarcasm=detector, backup=helper({"x": [0.1, 0.1, 0.8]}))
    assert told(answer(predictor, "x"))[1] == "backup"
    assert first.predictor.asked == []


# The cache ---------------------------------------------------------------------------------------------------------


def test_an_equal_text_is_answered_from_memory_by_the_same_version() -> None:
    main, backup = Scripted({"x": UNSURE}), helper({"x": [0.1, 0.1, 0.8]})
    predictor = healing(main, backup=backup, cache=10)
    assert told(answer(predictor, "x"))[:3] == ("anger", "backup", "second/1")
    assert told(answer(predictor, "x"))[:3] == ("anger", "cache", "second/1")
    assert main.asked == backup.predictor.asked == ["x"]


def test_equal_texts_of_one_call_are_computed_once() -> None:
    main = Scripted({"x": SURE, "y": SURE})
    answers = healing(main, cache=1).predict([("x",), ("y",), ("x",), ("x",)])
    assert [each.source for each in answers] == ["model", "model", "cache", "cache"]
    assert main.asked == ["x", "y"]


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    main = Scripted(dict.fromkeys("abc", SURE))
    predictor = healing(main, cache=2)
    for text in "abacaba":
        answer(predictor, text)
    assert main.asked == ["a", "b", "c", "b"]


def test_an_answer_in_place_of_a_failed_model_is_not_kept() -> None:
    script: dict[str, object] = {"x": ValueError("out of memory")}
    predictor = healing(Scripted(script), backup=helper({"x": UNSURE}), cache=10)
    assert answer(predictor, "x").source == "backup"
    script["x"] = SURE
    assert told(answer(predictor, "x"))[:2] == ("joy", "model")


def test_memory_holds_digests_and_no_texts() -> None:
    memory = Memory(2)
    memory.put(key_of(("a secret",)), Answer(np.array(SURE, np.float32), truncated=False))
    assert "secret" not in repr(vars(memory))
    assert key_of(("ab", "c")) != key_of(("a", "bc")) != key_of(("abc",))
    assert key_of(("\ud800",)) == key_of(("\ud800",))
