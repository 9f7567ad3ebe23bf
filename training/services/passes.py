"""What every pass over a file needs: how far it came, the list of bad rows, and how it ends."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from kalimtak.core.errors import InvalidInput
from registry import store
from training.models import Dataset
from training.streams import ImportRefused

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from training.importers import RowError

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
Effect = Callable[[], AbstractContextManager[Any]]
ERRORS_KEPT = 1_000_000  # rows in the file of bad rows
ANALYSIS_SHARE = 0.4  # of the whole work, for the progress bar

OutcomeT = TypeVar("OutcomeT", bound="DataclassInstance")


@dataclass
class Checkpoint(Generic[OutcomeT]):
    """How far the file was loaded: whether it was analysed, and how many chunks are in, with what they gave.

    It is written in the transaction of each chunk, and counts for what it was made of alone: file and options.
    """

    key: str
    chunks: int
    outcome: OutcomeT

    @classmethod
    def of(cls, dataset: Dataset, outcome: type[OutcomeT]) -> Self:
        said = json.dumps([dataset.digest, dataset.role, dataset.options], sort_keys=True)
        key = hashlib.sha256(said.encode()).hexdigest()
        held = dataset.checkpoint if dataset.checkpoint.get("key") == key else {}
        return cls(key, held.get("chunks", -1), outcome(**held.get("outcome", {})))

    @property
    def is_analysed(self) -> bool:
        return self.chunks >= 0

    def save(self, dataset: Dataset) -> None:
        dataset.checkpoint = asdict(self)
        Dataset.objects.filter(pk=dataset.pk).update(checkpoint=dataset.checkpoint)


class BadRows:
    """The list of rows that were left out, as CSV: for people to take away, mend and load."""

    def __init__(self, stream: Any, unit: str) -> None:
        self._stream, self._count = stream, 0
        self._write(unit, "reason")

    def add(self, error: "RowError") -> None:
        self._count += 1
        if self._count <= ERRORS_KEPT:
            self._write(error.line, error.reason)

    def keep(self) -> str:
        """Put the list into the store; its digest, or "" where no row was left out."""
        if not self._count:
            return ""
        self._stream.seek(0)
        return store.dataset_put(self._stream)

    def _write(self, *cells: Any) -> None:
        from training.exporters import csv_line

        self._stream.write(csv_line(cells))


@contextmanager
def refusals_told() -> Iterator[None]:
    """`ImportRefused` as the error that every door shows."""
    try:
        yield
    except ImportRefused as error:
        raise InvalidInput(str(error), code="dataset_refused") from error


def note_failure(dataset: Dataset, error: str) -> None:
    """An attempt that was overtaken has no say about what a newer one finished."""
    unfinished = Dataset.objects.filter(pk=dataset.pk).exclude(state=Dataset.State.READY)
    unfinished.update(state=Dataset.State.FAILED, error=error)


def share_of(done: int, total: int) -> float:
    return ANALYSIS_SHARE + (1 - ANALYSIS_SHARE) * done / total


def storable(value: Any) -> Any:
    """A report without what no database keeps as JSON: NUL and lone surrogates, as column names may hold them."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {storable(name): storable(each) for name, each in value.items()}
    return [storable(each) for each in value] if isinstance(value, list | tuple) else value
