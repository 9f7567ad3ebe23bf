"""Answers that heal themselves: a predictor that lets others answer where its own model is unsure, misled or broken.

In this order, each step where it is configured: what was answered before comes from memory; a cheap model answers what
it is sure of (the cascade); the main model answers the rest; and a backup answers in its place where it failed, where
it would abstain and the backup is surer, or where the text is sarcastic. Pure: knows predictors and numbers only.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from registry.calibration import DEFAULT_THRESHOLD, Calibration
from registry.families.base import Answer, Fields, Predictor

logger = logging.getLogger(__name__)

SARCASTIC = "sarcastic"  # the label by which a sarcasm classifier says so
SUSPICION = 0.3  # its probability from which the backup is asked, whose disagreement then decides


@dataclass(frozen=True)
class Helper:
    """A version that may answer for another; `ref` is `<classifier>/<number>`. Its labels are among the other's."""

    ref: str
    predictor: Predictor


@dataclass(frozen=True)
class Cascade(Helper):
    """A cheap version, and the calibrated confidence from which its answer is given."""

    threshold: float = 1.0


@dataclass(frozen=True)
class Helpers:
    """Who helps a version. `cache`: answers kept, 0 for none."""

    backup: Helper | None = None
    sarcasm: Helper | None = None
    cascade: Cascade | None = None
    cache: int = 0

    def __bool__(self) -> bool:
        return self != Helpers()


class Healing:
    """`registry.families.base.Predictor`: the main predictor with its helpers.

    `floor` is the confidence under which a version without a threshold of its own abstains. Answers have their
    probabilities in the order of the main predictor's labels, whoever gave them.
    """

    def __init__(self, main: Predictor, helpers: Helpers, *, floor: float) -> None:
        self.labels, self.input_fields, self.calibration = main.labels, main.input_fields, main.calibration
        self.batches = getattr(main, "batches", False)
        self.main, self.helpers, self.floor = main, helpers, floor
        self._known = Memory(helpers.cache)

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """One answer per input. Raises what the main predictor raised where nobody else could answer."""
        if not self.helpers.cache:
            return [answer for answer, _ in self._answer(inputs)]
        keys = [key_of(fields) for fields in inputs]
        known = {key: answer for key in keys if (answer := self._known.get(key)) is not None}
        new = {key: fields for key, fields in zip(keys, inputs, strict=True) if key not in known}
        fresh = dict(zip(new, self._answer(list(new.values())), strict=True))
        for key, (answer, lasts) in fresh.items():
            if lasts:
                self._known.put(key, answer)
        answers = []
        for key in keys:
            given = fresh.pop(key, None)  # only the first of equal texts was computed for
            answer = given[0] if given else replace(known[key], source="cache")
            known.setdefault(key, answer)
            answers.append(answer)
        return answers

    def _answer(self, inputs: Sequence[Fields]) -> list[tuple[Answer, bool]]:
        """Each answer, and whether the same text would get it again: not so where the main model failed."""
        if not inputs:
            return []
        suspicions = self._suspicions(inputs)
        early = self._early(inputs, suspicions)
        rest = [index for index in range(len(inputs)) if index not in early]
        opinions = dict(zip(rest, ask(self.main, [inputs[index] for index in rest]), strict=True))
        doubtful = [index for index in rest if self._is_doubtful(opinions[index], suspicions[index])]
        seconds = self._seconds([inputs[index] for index in doubtful])
        second = dict(zip(doubtful, seconds, strict=True))
        return [
            (early[index], True)
            if index in early
            else self._decide(opinions[index], second.get(index), suspicions[index])
            for index in range(len(inputs))
        ]

    # Who is asked ------------------------------------------------------------------------------------------------

    def _suspicions(self, inputs: Sequence[Fields]) -> list[float]:
        """The probability that each text is sarcastic; 0 where nobody can tell."""
        helper = self.helpers.sarcasm
        if helper is None:
            return [0.0] * len(inputs)
        place = helper.predictor.labels.index(SARCASTIC)
        opinions = ask(helper.predictor, inputs)
        return [0.0 if isinstance(each, Exception) else float(each.probabilities[place]) for each in opinions]

    def _early(self, inputs: Sequence[Fields], suspicions: Sequence[float]) -> dict[int, Answer]:
        """The answers of the cascade's cheap model that it is sure enough of, by position."""
        helper = self.helpers.cascade
        if helper is None:
            return {}
        chosen = [index for index, suspicion in enumerate(suspicions) if suspicion < SUSPICION]
        opinions = ask(helper.predictor, [inputs[index] for index in chosen])
        return {
            index: self._by(helper, opinion, "cascade")
            for index, opinion in zip(chosen, opinions, strict=True)
            if not isinstance(opinion, Exception) and opinion.probabilities.max() >= helper.threshold
        }

    def _is_doubtful(self, opinion: Answer | Exception, suspicion: float) -> bool:
        if isinstance(opinion, Exception) or suspicion >= SUSPICION:
            return True
        return not is_sure(opinion.probabilities, self.labels, self.calibration, self.floor)

    def _seconds(self, inputs: Sequence[Fields]) -> list[Answer | Exception | None]:
        """The backup's answers, its probabilities put where the main model's labels are."""
        helper = self.helpers.backup
        if helper is None:
            return [None] * len(inputs)
        opinions = ask(helper.predictor, inputs)
        return [each if isinstance(each, Exception) else self._by(helper, each, "backup") for each in opinions]

    def _by(self, helper: Helper, answer: Answer, source: str) -> Answer:
        spread = np.zeros(len(self.labels), np.float32)
        for label, probability in zip(helper.predictor.labels, answer.probabilities, strict=True):
            spread[self.labels.index(label)] = probability
        return replace(answer, probabilities=spread, source=source, by=helper.ref)

    # Who is heard ------------------------------------------------------------------------------------------------

    def _decide(
        self, first: Answer | Exception, second: Answer | Exception | None, suspicion: float
    ) -> tuple[Answer, bool]:
        backup = second if isinstance(second, Answer) else None
        if isinstance(first, Exception):
            if backup is None:
                raise first
            logger.warning("%s answers, since the model failed: %r", backup.by, first)
            return backup, False
        flags = ("sarcasm",) if self._is_sarcastic(first, backup, suspicion) else ()
        takes_over = backup is not None and (flags or self._is_surer(backup, first))
        chosen = backup if takes_over and backup is not None else first
        return replace(chosen, flags=flags), True

    def _is_sarcastic(self, first: Answer, backup: Answer | None, suspicion: float) -> bool:
        """Surely so for the detector; or it suspects so, and the two models take the text differently."""
        helper = self.helpers.sarcasm
        if helper is None:
            return False
        own = helper.predictor.calibration.threshold
        if suspicion >= (DEFAULT_THRESHOLD if own is None else own):
            return True
        differs = backup is not None and backup.probabilities.argmax() != first.probabilities.argmax()
        return suspicion >= SUSPICION and differs

    def _is_surer(self, backup: Answer, first: Answer) -> bool:
        """Of an answer that would abstain: by calibrated confidence; of several labels, who gives one at all."""
        if is_sure(first.probabilities, self.labels, self.calibration, self.floor):
            return False
        if self.calibration.multi_label and self.helpers.backup is not None:
            calibration = self.helpers.backup.predictor.calibration
            return is_sure(backup.probabilities, self.labels, calibration, self.floor)
        return bool(backup.probabilities.max() > first.probabilities.max())


def is_sure(probabilities: NDArray[np.float32], labels: Sequence[str], calibration: Calibration, floor: float) -> bool:
    """Whether these (labels,) are an answer: over the threshold, or with several labels, one of them over its own."""
    if calibration.multi_label:
        thresholds = [calibration.thresholds.get(label, DEFAULT_THRESHOLD) for label in labels]
        return bool((probabilities >= np.array(thresholds)).any())
    return bool(probabilities.max() >= (floor if calibration.threshold is None else calibration.threshold))


def ask(predictor: Predictor, inputs: Sequence[Fields]) -> list[Answer | Exception]:
    """Every answer, or why there is none: one odd text costs its neighbours nothing."""
    if not inputs:
        return []
    try:
        answers = predictor.predict(inputs)
        if len(answers) != len(inputs):
            raise ValueError(f"{len(inputs)} texts got {len(answers)} answers")
    except Exception as error:
        if len(inputs) == 1:
            return [error]
        return [ask(predictor, [fields])[0] for fields in inputs]
    return [checked(answer, predictor.labels) for answer in answers]


def checked(answer: Answer, labels: Sequence[str]) -> Answer | Exception:
    """A model that diverged answers what is no number: that is a failure like any other."""
    if answer.probabilities.shape == (len(labels),) and np.isfinite(answer.probabilities).all():
        return answer
    return ValueError(f"{len(labels)} labels got scores that are no probabilities")


def key_of(fields: Fields) -> bytes:
    """Equal for equal texts alone; a digest, so that no text of anybody stays in memory."""
    digest = hashlib.blake2b(digest_size=16)
    for text in fields:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8) + raw)
    return digest.digest()


class Memory:
    """The answers to the last `size` different texts that were asked."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get(self, key: bytes) -> Answer | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(self, key: bytes, answer: Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
