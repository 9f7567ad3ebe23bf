"""Other classifiers that read what is being curated: what a text is about, and whether it is fit to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kalimtak.core.alerts import alert_open, alert_over
from kalimtak.core.errors import KalimtakError
from registry import families, store
from registry.families.base import Answer, FamilyError, Predictor, first_line
from registry.manifest import ArtefactCorrupt
from registry.models import Classifier
from registry.services import classifier_get, live_version
from training.etl import Record
from training.etl.content import judges_language

# Labels by which a moderating classifier says that nothing is wrong.
HARMLESS = frozenset(
    {"acceptable", "appropriate", "clean", "fine", "ham", "harmless", "neutral", "none", "normal", "ok", "safe"}
    | {"non-toxic", "non_toxic", "not_offensive", "not_toxic", "no_hate", "allowed"}
)
ALERT = "reader_unavailable"


@dataclass(frozen=True)
class Reading:
    """What a classifier makes of a text: the label it is surest of, how sure, and whether that is sure enough."""

    label: str
    confidence: float
    is_sure: bool


class Reader:
    """The live version of the classifier `slug`, loaded when first asked. `for_whom` is the classifier being curated.

    Where it cannot answer (no live version, a damaged folder) there is an alert, and nobody waits for it: curation goes
    on without. It loads no torch.
    """

    def __init__(self, slug: str, for_whom: Classifier) -> None:
        self.slug, self.for_whom = slug, for_whom
        self._predictor: Predictor | None = None
        self._floor, self._is_asked = 0.0, False

    def read(self, records: Sequence[Record]) -> list[Reading] | None:
        """A reading of each record; None where the classifier cannot answer now."""
        if not records or not self._is_ready() or self._predictor is None:
            return None
        try:
            answers = self._predictor.predict([self._fields(record) for record in records])
        except Exception as error:  # whatever a library makes of a text
            self._give_up(first_line(error))
            return None
        return [self._reading(answer) for answer in answers]

    def _fields(self, record: Record) -> tuple[str, ...]:
        assert self._predictor is not None
        is_same = len(self._predictor.input_fields) == len(record.fields)
        return record.fields if is_same else ("\n".join(record.fields),)

    def _reading(self, answer: Answer) -> Reading:
        assert self._predictor is not None
        best = int(answer.probabilities.argmax())
        confidence = float(answer.probabilities[best])
        label = self._predictor.labels[best]
        calibration = self._predictor.calibration
        least = calibration.thresholds.get(label, self._floor) if calibration.multi_label else calibration.threshold
        return Reading(label, confidence, confidence >= (self._floor if least is None else least))

    def _is_ready(self) -> bool:
        if not self._is_asked:
            self._is_asked = True
            self._load()
        return self._predictor is not None

    def _load(self) -> None:
        try:
            classifier = classifier_get(self.slug)
            version = live_version(classifier)
            if version is None:
                self._give_up("it has no live version; train and deploy one")
                return
            self._predictor = families.load(store.version_folder(classifier.slug, version.number))
            self._floor = classifier.get_policy().confidence_floor
        except (KalimtakError, ArtefactCorrupt, FamilyError, OSError) as error:
            self._give_up(first_line(error))
            return
        alert_over(ALERT, self._target)

    @property
    def _target(self) -> str:
        return f"{self.for_whom.slug}: {self.slug}"

    def _give_up(self, why: str) -> None:
        self._predictor = None
        message = f"The classifier {self.slug} could not read what {self.for_whom.slug} is to learn from: {why}."
        alert_open(ALERT, self._target, message)


class SecondOpinion:
    """A moderating classifier beside the word lists (`policy.review.moderation`).

    What it objects to waits for a reviewer; it drops nothing. Asked are only records that nobody doubts yet, and none
    of a classifier that judges language itself.
    """

    def __init__(self, classifier: Classifier, slug: str | None) -> None:
        wanted = bool(slug) and slug != classifier.slug and not judges_language(classifier.labels)
        self._reader = Reader(slug or "", classifier) if wanted else None

    def doubt(self, records: Sequence[Record]) -> list[Record]:
        asked = [record for record in records if not record.doubts]
        readings = self._reader.read(asked) if self._reader else None
        if readings is None:
            return list(records)
        read = dict(zip(map(id, asked), readings, strict=True))
        return [self._judged(record, read.get(id(record))) for record in records]

    def _judged(self, record: Record, reading: Reading | None) -> Record:
        if reading is None or not reading.is_sure or reading.label.casefold() in HARMLESS:
            return record
        assert self._reader is not None
        said = f"The classifier {self._reader.slug} calls it {reading.label!r} ({reading.confidence:.0%})."
        return record.doubted("second_opinion", said)


def read_domains(reader: Reader, records: Sequence[Record]) -> list[Record] | None:
    """The records with the label that a domain classifier is sure of, or "". None where it cannot answer."""
    readings = reader.read(records)
    if readings is None:
        return None
    pairs = zip(records, readings, strict=True)
    return [replace(record, domain=reading.label[:60] if reading.is_sure else "") for record, reading in pairs]
