"""A data set's file as it is read: recognised, with its columns and what its labels may be; and its beginning."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

from kalimtak.core import pii
from kalimtak.core.errors import InvalidInput
from registry import store
from registry.models import Classifier
from training.models import Dataset
from training.services.passes import note_failure, refusals_told
from training.streams import ImportRefused

if TYPE_CHECKING:
    from training.analysis import LabelRules
    from training.columns import Columns
    from training.importers import Chunk, RowError, Source
    from training.labelling import ReadRows
    from training.past import PastColumns

MAX_ROUNDS = 10  # as many labels of one cell can be told by what was said of them, in a preview
PREVIEW_ROWS, PREVIEW_CHARACTERS = 10, 200
Meanings = Callable[[Collection[str]], Mapping[str, str]]  # of labels in a file, what was said of some of them


class Opened(NamedTuple):
    """A file, the columns that are read, and what its labels may be."""

    source: "Source"
    columns: "Columns"
    rules: "LabelRules"


class Preview(NamedTuple):
    """The beginning of a file: how it was recognised, its first rows, and the labels among the first 500.

    `unknown` labels stay unknown after what was said of them, `foreign` are all that the classifier does not have.
    `personal` counts the personal data in these rows by kind, `with_personal` the rows that hold some, of `read` ones.
    `columns` is None where they cannot be told; then `refusal` says why.
    """

    source: "Source"
    columns: "Columns | None"
    rows: list[list[str]]
    labels: dict[str, int]
    unknown: dict[str, int]
    problems: list["RowError"]
    refusal: str = ""
    foreign: Mapping[str, int] = {}
    personal: Mapping[str, int] = {}
    with_personal: int = 0
    read: int = 0


def dataset_preview(
    dataset: Dataset, options: Mapping[str, Any] | None = None, meanings: Meanings | None = None
) -> Preview:
    """Read the beginning of the file as its options, or the `options` given, say.

    `meanings` is asked what labels mean that the classifier does not have, where `options["labels"]` does not say it:
    for whoever knows the labels of a file only once it is read. Raises `InvalidInput` for a file that cannot be read
    at all.
    """
    from training.importers import chunks

    options = dataset.options if options is None else options
    with refusals_told():
        source = _source_of(dataset, options)
        first = next(chunks(source))
    shown = first.frame.head(PREVIEW_ROWS).itertuples(index=True, name=None)
    rows = [["" if cell is None else str(cell)[:PREVIEW_CHARACTERS] for cell in row] for row in shown]
    try:
        opened = _columns_of(dataset, source, options)
    except ImportRefused as error:
        return Preview(source, None, rows, {}, {}, list(first.errors), str(error))
    told = options.get("labels") or {}
    read, foreign = _read_beginning(dataset, opened, first, options, meanings or (lambda labels: told))
    labels = Counter(label for row in read.rows if row.label for label in opened.rules.parts(row.label))
    found = [[finding.kind for text in row.fields for finding in pii.find(text)] for row in read.rows]
    return Preview(
        source,
        opened.columns,
        rows,
        dict(labels.most_common()),
        dict(read.unknown.most_common()),
        read.errors,
        foreign=dict(foreign.most_common()),
        personal=dict(Counter(kind for kinds in found for kind in kinds).most_common()),
        with_personal=sum(map(bool, found)),
        read=len(read.rows),
    )


def dataset_look(dataset: Dataset) -> None:
    """Note on the row of a file that was just sent in, and is not being loaded, why it cannot be read, where so.

    It may be loaded all the same, where another encoding helps.
    """
    try:
        dataset_preview(dataset)
    except InvalidInput as error:
        note_failure(dataset, error.message)


def _read_beginning(
    dataset: Dataset, opened: Opened, first: "Chunk", options: Mapping[str, Any], meanings: Meanings
) -> tuple["ReadRows", Counter[str]]:
    """The first chunk with what was said of its labels, and the labels that the classifier does not have.

    Of several labels in a cell the first unknown one alone is told, hence the rounds.
    """
    from training.analysis import read_rows

    said: dict[str, str] = {}
    foreign: Counter[str] = Counter()
    for _ in range(MAX_ROUNDS):
        rules = label_rules(dataset.classifier, opened.source, opened.columns, {"labels": said})
        unknown = read_rows(first, opened.columns, rules).unknown
        foreign |= unknown
        more = {label: meaning for label, meaning in meanings(list(unknown)).items() if label in unknown}
        if not more:
            break
        said |= more
    rules = label_rules(dataset.classifier, opened.source, opened.columns, {**options, "labels": said})
    return read_rows(first, opened.columns, rules), foreign


def dataset_open(dataset: Dataset, options: Mapping[str, Any]) -> Opened:
    """Recognise the file and its columns. Raises `ImportRefused`."""
    return _columns_of(dataset, _source_of(dataset, options), options)


def _source_of(dataset: Dataset, options: Mapping[str, Any]) -> "Source":
    from training.importers import Limits, open_source  # pandas takes half a second, which the web need not pay for

    path = store.dataset_path(dataset.digest)
    limits = Limits(unpacked=settings.KALIMTAK_MAX_UPLOAD)
    return open_source(path, dataset.name, limits, encoding=options.get("encoding", ""))


def _columns_of(dataset: Dataset, source: "Source", options: Mapping[str, Any]) -> Opened:
    from training.columns import choose_columns, with_status

    classifier = dataset.classifier
    columns = choose_columns(
        source.columns,
        source.sample,
        input_fields=classifier.input_fields,
        label_field=classifier.label_field,
        labels={*classifier.labels, *classifier.get_label_config().mapping, *(options.get("labels") or {})},
        multi_label=classifier.multi_label,
        asked_inputs=options.get("text_fields") or (),
        asked_label=options.get("label_field") or "",
        asked_split=options.get("split_field") or "",
    )
    columns = with_status(columns, source.columns, source.sample)
    return Opened(source, columns, label_rules(classifier, source, columns, options))


def label_rules(
    classifier: Classifier, source: "Source", columns: "Columns | PastColumns", options: Mapping[str, Any] | None = None
) -> "LabelRules":
    """How the label column of a file is read for this classifier, and with what a person said of its labels."""
    from training.analysis import SEPARATORS, LabelRules, separators_in

    options, separators = options or {}, SEPARATORS
    if classifier.multi_label and not classifier.labels and columns.label:
        separators = separators_in(source.sample[columns.label])
    told = options.get("labels") or {}
    return LabelRules(
        tuple(classifier.labels),
        dict(classifier.get_label_config().mapping) | {found: label for found, label in told.items() if label},
        classifier.multi_label,
        separators,
        left_out=frozenset(found for found, label in told.items() if not label),
        drops_unknown=options.get("unknown_labels") == "drop",
    )
