"""Examples that clients give without an interaction: kept as candidates until the next curation."""

from collections.abc import Mapping, Sequence

from django.db import transaction

from kalimtak.core import audit
from kalimtak.core.auth import Caller
from kalimtak.core.errors import InvalidInput, TooLarge
from registry.models import Classifier
from registry.services import label_given
from training.etl.clean import MAX_CHARACTERS, redact_fields
from training.etl.duplicates import content_hash
from training.etl.load import fields_dict
from training.models import TrainingDataItem

Status = TrainingDataItem.Status


def example_add(
    classifier: Classifier,
    *,
    fields: Mapping[str, str],
    label: str = "",
    labels: Sequence[str] | None = None,
    caller: Caller,
    source: str,
) -> TrainingDataItem:
    """Keep an example that came without an interaction as a candidate; the same example twice is one item.

    `source` is whose word it is; that of an anonymous caller begins with `anonymous:`. `labels` are those of a
    multi-label classifier, perhaps none. Raises `InvalidInput` for a label outside the set or a missing text,
    `TooLarge` for a text that is too long.
    """
    texts = tuple(_checked_text(classifier, fields, name) for name in classifier.input_fields)
    label = label_given(classifier, label, labels)
    if not label:
        raise InvalidInput("Give the correct label.", fields={"correct_label": ["Give a label."]})
    texts, _ = redact_fields(texts)
    digest = content_hash(texts)
    with transaction.atomic():
        TrainingDataItem.objects.bulk_create(
            [
                TrainingDataItem(
                    classifier=classifier,
                    origin=TrainingDataItem.Origin.EXAMPLE,
                    source=source,
                    fields=fields_dict(classifier.input_fields, texts),
                    label=label,
                    status=Status.CANDIDATE,
                    reason="Waits for the next curation.",
                    content_hash=digest,
                )
            ],
            ignore_conflicts=True,
        )
        same = TrainingDataItem.objects.filter(classifier=classifier, content_hash=digest, label=label)
        item = same.exclude(status__in=[Status.REJECTED, Status.QUARANTINED]).get()
        audit.record(caller.name, "example.add", f"item {item.pk}", classifier=classifier.slug)
    return item


def _checked_text(classifier: Classifier, fields: Mapping[str, str], name: str) -> str:
    text = fields.get(name)
    if isinstance(text, str):
        text = text.replace("\x00", "")  # PostgreSQL cannot hold it
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"{classifier} reads {name!r}: give a text.", fields={name: ["Give a text."]})
    if len(text) > MAX_CHARACTERS:
        message = f"Longer than {MAX_CHARACTERS} characters."
        raise TooLarge(f"{name}: {message}", fields={name: [message]})
    return text
