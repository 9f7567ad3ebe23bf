"""A labelled file as examples, without loading it into the database: what `evaluate --dataset` judges a version on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kalimtak.core.errors import InvalidInput
from registry.families.base import Example
from registry.models import Classifier
from training.columns import Columns, choose_columns
from training.importers import ImportRefused, RowError, Source, chunks, open_source
from training.services.files import label_rules


class LabelledFile(NamedTuple):
    """The good rows, and why the others are none."""

    examples: list[Example]
    errors: list[RowError]


def labelled_file_read(classifier: Classifier, path: Path) -> LabelledFile:
    """Every row of `path` with all inputs and a label, labels mapped as the classifier's configuration says.

    Raises `InvalidInput` where the file cannot be read or has no such row.
    """
    try:
        source = open_source(path, path.name)
        columns = choose_columns(
            source.columns,
            source.sample,
            input_fields=classifier.input_fields,
            label_field=classifier.label_field,
            labels=classifier.labels,
            multi_label=classifier.multi_label,
        )
        file, read = LabelledFile([], []), _label_reader(classifier, source, columns)
        for chunk in chunks(source):
            file.errors.extend(chunk.errors)
            for line, row in chunk.frame.iterrows():
                _take(file, int(str(line)), row, columns, read)
    except (ImportRefused, OSError) as error:
        raise InvalidInput(str(error)) from error
    if not file.examples:
        why = f" Line {file.errors[0].line}: {file.errors[0].reason}" if file.errors else ""
        raise InvalidInput(f"{path.name} has no row with {' and '.join(classifier.input_fields)} and a label.{why}")
    return file


def _label_reader(classifier: Classifier, source: Source, columns: Columns) -> Callable[[Any], tuple[str, str]]:
    """From a cell to its label and what is wrong with it ("": nothing). One unknown label refuses the file later on."""
    if classifier.multi_label:
        return label_rules(classifier, source, columns).read
    mapping = classifier.get_label_config().mapping

    def read(cell: Any) -> tuple[str, str]:
        label = _text(cell)
        return mapping.get(label, label), ""

    return read


def _take(file: LabelledFile, line: int, row: Any, columns: Columns, read: Callable[[Any], tuple[str, str]]) -> None:
    texts = tuple(_text(row[name]) for name in columns.inputs)
    label, problem = read(row[columns.label]) if columns.label else ("", "")
    if problem or not all(texts) or not label:
        file.errors.append(RowError(line, problem or "An input or the label is empty."))
    else:
        file.examples.append(Example(texts, label))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()
