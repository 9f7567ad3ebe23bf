"""Interactions of the past, from a file into the tables and back: a log becomes evidence for the curation."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from interactions.importing import PastInteraction, past_id, past_record
from interactions.models import Feedback, UserInteraction
from interactions.services import pseudonym_of
from kalimtak.core import audit, jobs
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import InvalidInput, KalimtakError
from registry import store
from registry.models import Classifier, ModelVersion
from training.etl.clean import text_problem
from training.models import Dataset
from training.past import (
    ANYWHERE,
    PSEUDONYM,
    SOURCE,
    PastColumns,
    RowRefused,
    confidence_of,
    hour_told,
    moment_of,
    name_of,
    past_columns,
    rating_of,
)
from training.services.datasets import Progress, dataset_add
from training.services.files import label_rules
from training.services.passes import BadRows, Checkpoint, Effect, note_failure, refusals_told, share_of, storable
from training.streams import ImportRefused

if TYPE_CHECKING:
    from training.analysis import LabelRules
    from training.importers import Chunk, RowError, Source

EXPORTED = 1_000  # rows read at once
COLUMNS_BEFORE = ("id", "created_at", "classifier", "model_version")
COLUMNS_AFTER = (
    *("label", "confidence", "rating", "comment", "correct_label", "feedback_source", "feedback_at"),
    *("reviewed_label", "pseudonym"),
)


@dataclass
class PastOutcome:
    """What the import did: interactions and feedback that were new, or there already."""

    recorded: int = 0
    repeated: int = 0
    feedback: int = 0
    changed: int = 0


def interactions_add(
    classifier: Classifier,
    *,
    source: BinaryIO | Path,
    name: str,
    options: Mapping[str, Any] | None = None,
    actor: str,
    ring: bool = True,
) -> Dataset:
    """Keep a log in the store, with the row that stands for it and the job that records it.

    `options` may name `text_fields`, `label_field`, `rating_field` and `encoding`, and say `any_classifier`: rows that
    name another classifier are its. Raises what `dataset_add` raises.
    """
    dataset = dataset_add(
        classifier,
        source=source,
        name=name,
        options=options,
        actor=actor,
        origin=Dataset.Origin.FEEDBACK,
    )
    with transaction.atomic():
        job = jobs.enqueue("import_interactions", {"dataset": dataset.pk}, actor=actor, ring=ring)
        Dataset.objects.filter(pk=dataset.pk).update(job=job)
    dataset.job = job
    return dataset


# Reading ---------------------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """From rows of the file to interactions; what it has looked up is kept."""

    dataset: Dataset
    source: "Source"
    columns: PastColumns
    now: datetime
    rules: dict[str, tuple[Classifier, "LabelRules"]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def read(self, chunk: "Chunk") -> "tuple[list[PastInteraction], list[RowError]]":
        from training.importers import RowError

        good, errors = [], list(chunk.errors)
        names = list(chunk.frame.columns)
        for line, *cells in chunk.frame.itertuples(index=True, name=None):
            try:
                good.append(self._interaction(dict(zip(names, cells, strict=True))))
            except RowRefused as error:
                errors.append(RowError(int(line), str(error)))
        return good, errors

    def _interaction(self, row: Mapping[str, Any]) -> PastInteraction:
        def told(key: str) -> Any:
            return row.get(self.columns.named.get(key, ""))

        classifier, rules = self._classifier(name_of(told("classifier")))
        fields = self._fields(classifier, row)
        label = self._label(rules, row.get(self.columns.label or ""), "the answer")
        correct = told("correct_label")
        correction = "" if correct in (None, "") else self._label(rules, correct, "the correction")
        subject, pseudonym = name_of(told("subject")), name_of(told("pseudonym"))
        if not PSEUDONYM.fullmatch(pseudonym):
            pseudonym = pseudonym_of(subject) if subject else ""
        moment = moment_of(told("created_at"), self.now)
        giver = name_of(told("source"))
        if not SOURCE.fullmatch(giver):
            giver = ""
        said_at = moment_of(told("said_at"), self.now) if "said_at" in self.columns.named else hour_told(moment)
        version = self._version(classifier, name_of(told("version")))
        comment = "" if told("comment") is None else str(told("comment")).replace("\x00", "")[:4_000]
        judgement = {self.columns.named.get(key) for key in ("rating", "comment", "correct_label")}
        identity = {name: cell for name, cell in row.items() if name not in judgement}
        return PastInteraction(
            id=self._id(classifier, name_of(told("id")), moment, identity),
            classifier_id=classifier.pk,
            version_id=version,
            fields=fields,
            label=classifier.label_parts(label)[0] if classifier.label_parts(label) else label,
            labels=label if classifier.multi_label else "",
            confidence=confidence_of(told("confidence")),
            created_at=moment or self.now,
            pseudonym=pseudonym,
            source=giver or (f"subject:{pseudonym}" if pseudonym else importer_of(self.dataset)),
            is_certain=giver.startswith(ANYWHERE),
            rating=rating_of(told("rating")),
            comment=comment,
            correct_label=correction,
            said_at=said_at,
        )

    def _classifier(self, slug: str) -> "tuple[Classifier, LabelRules]":
        own = self.dataset.classifier
        slug = slug if slug and self.dataset.options.get("any_classifier") else own.slug
        if slug not in self.rules:
            found = own if slug == own.slug else Classifier.objects.filter(slug=slug).first()
            if found is None:
                raise RowRefused(f"There is no classifier {slug[:60]!r}.")
            self.rules[slug] = found, label_rules(found, self.source, self.columns)
        return self.rules[slug]

    def _fields(self, classifier: Classifier, row: Mapping[str, Any]) -> dict[str, str]:
        names: tuple[str, ...] = tuple(classifier.input_fields)
        columns = self.columns.inputs if classifier == self.dataset.classifier else names
        texts = tuple("" if row.get(name) is None else str(row[name]).replace("\x00", "") for name in columns)
        if problem := text_problem(texts):
            raise RowRefused(problem)
        return dict(zip(names, texts, strict=True))

    def _label(self, rules: "LabelRules", cell: Any, what: str) -> str:
        label, problem = rules.read(cell)
        if problem:
            raise RowRefused(f"{problem.rstrip('.')} ({what}).")
        return label

    def _version(self, classifier: Classifier, name: str) -> int | None:
        """The id of the version that is named, where it is one of this installation's."""
        if name not in self.versions:
            slug, _, number = name.rpartition("/")
            is_ours = slug in ("", classifier.slug) and number.isdecimal() and len(number) < 9
            found = ModelVersion.objects.filter(classifier=classifier, number=int(number)) if is_ours else None
            self.versions[name] = (found.values_list("pk", flat=True).first() if found is not None else None) or 0
        return self.versions[name] or None

    def _id(self, classifier: Classifier, said: str, moment: datetime | None, row: Mapping[str, Any]) -> UUID:
        """An id of ours as it stands; else from the one given elsewhere, else from all but the judgement."""
        try:
            return UUID(said)
        except ValueError:
            return past_id(moment, classifier.slug, said or row)


def importer_of(dataset: Dataset) -> str:
    """The source of words of which the file does not tell whose they are."""
    return f"import:{dataset.actor}"[:80]


def _open(dataset: Dataset) -> _Reader:
    """Raises `ImportRefused`."""
    from training.importers import Limits, open_source

    classifier, options = dataset.classifier, dataset.options
    limits = Limits(unpacked=settings.KALIMTAK_MAX_UPLOAD)
    path = store.dataset_path(dataset.digest)
    source = open_source(path, dataset.name, limits, encoding=options.get("encoding", ""))
    columns = past_columns(
        source.columns,
        source.sample,
        input_fields=classifier.input_fields,
        label_field=classifier.label_field,
        labels=classifier.labels,
        multi_label=classifier.multi_label,
        asked=options,
    )
    if columns.label is None:
        raise ImportRefused(f"{dataset.name} has no column with the labels that were answered; name it.")
    return _Reader(dataset, source, columns, timezone.now())


def _look_through(reader: _Reader, progress: Progress) -> dict[str, Any]:
    """The report on the whole file. Raises `ImportRefused` where no row of it can be recorded."""
    from training.importers import chunks

    ratings, labels, shown = Counter[int](), Counter[str](), list[dict[str, Any]]()
    rows = good = error_count = corrected = 0
    with tempfile.TemporaryFile() as listed:
        bad = BadRows(listed, reader.source.unit)
        for chunk in chunks(reader.source):
            read, errors = reader.read(chunk)
            rows, good, error_count = rows + len(read) + len(errors), good + len(read), error_count + len(errors)
            for error in errors:
                bad.add(error)
            shown += [asdict(error) for error in errors[: max(0, 100 - len(shown))]]
            ratings.update(row.rating for row in read if row.rating is not None)
            corrected += sum(bool(row.correct_label) for row in read)
            labels.update(row.label for row in read)
            progress(0.0, f"looked at {rows:,} rows")
        if not good:
            first = f" (line {shown[0]['line']}: {shown[0]['reason']})" if shown else ""
            raise ImportRefused(f"{reader.source.name} has no row that can be recorded{first}.")
        errors_file = bad.keep()
    source = reader.source
    return {
        "kind": "interactions",
        "file": {"name": source.name, "format": source.kind, "unit": source.unit, "encoding": source.encoding},
        "columns": {"input": list(reader.columns.inputs), "label": reader.columns.label, **reader.columns.named},
        "why": list(reader.columns.why),
        "rows": rows,
        "good": good,
        "ratings": {str(rating): ratings[rating] for rating in sorted(ratings)},
        "corrected": corrected,
        "labels": dict(labels.most_common(1_000)),
        "error_count": error_count,
        "errors": shown,
        "errors_file": errors_file,
    }


# Recording -------------------------------------------------------------------------------------------------------


def interactions_load(
    dataset: Dataset, *, progress: Progress | None = None, effect: Effect = transaction.atomic, job: str = ""
) -> Dataset:
    """Record the rows of a log as interactions with their feedback, at most 500 per transaction (`effect`).

    Nothing is recorded of a file that cannot be read to its end. A row is known by its id, else by its content, so
    that a repetition changes nothing; what broke off goes on at its chunk. Raises `InvalidInput`
    (`dataset_refused`) for a file of which no row can be recorded.
    """
    report_progress = progress or (lambda fraction, note: None)
    Dataset.objects.filter(pk=dataset.pk).update(state=Dataset.State.LOADING, error="")
    checkpoint = Checkpoint.of(dataset, PastOutcome)
    try:
        with refusals_told():
            reader = _open(dataset)
            if not checkpoint.is_analysed:
                dataset.report = storable(_look_through(reader, report_progress))
                crashpoint("past.analysed")
                with effect():
                    Dataset.objects.filter(pk=dataset.pk).update(report=dataset.report)
                    checkpoint.chunks = 0
                    checkpoint.save(dataset)
            _record_rows(dataset, reader, checkpoint, report_progress, effect)
    except KalimtakError as error:
        note_failure(dataset, error.message)
        raise
    except jobs.JobCancelled:
        note_failure(dataset, "Stopped before its end; import it again to go on.")
        raise
    crashpoint("past.before_ready")
    with effect():
        dataset.state, dataset.error, dataset.checkpoint = Dataset.State.READY, "", {}
        dataset.rows = checkpoint.outcome.recorded + checkpoint.outcome.repeated
        dataset.report |= {"outcome": asdict(checkpoint.outcome), "job": job}
        dataset.save(update_fields=["state", "error", "report", "rows", "checkpoint"])
        data = {"classifier": dataset.classifier.slug, **asdict(checkpoint.outcome)}
        audit.record(dataset.actor, "interactions.import", f"dataset {dataset.pk}", **data)
    return dataset


def _record_rows(
    dataset: Dataset, reader: _Reader, checkpoint: "Checkpoint[PastOutcome]", progress: Progress, effect: Effect
) -> None:
    from training.importers import chunks

    done, total, outcome = 0, max(dataset.report["rows"], 1), checkpoint.outcome
    for number, chunk in enumerate(chunks(reader.source), start=1):
        done += len(chunk.frame) + len(chunk.errors)
        if number <= checkpoint.chunks:
            progress(share_of(done, total), f"passed over {done:,} rows that are recorded")
            continue
        read = reader.read(chunk)[0]
        with effect():
            wrote = past_record(read, importer=importer_of(dataset))
            for name, count in wrote._asdict().items():
                setattr(outcome, name, getattr(outcome, name) + count)
            checkpoint.chunks = number
            checkpoint.save(dataset)
            crashpoint("past.in_chunk")
        crashpoint("past.between_chunks")
        progress(share_of(done, total), f"recorded {done:,} of {total:,} rows")


# Writing ---------------------------------------------------------------------------------------------------------


def interactions_columns(classifier: Classifier | None) -> list[str]:
    """The columns of an export: those of one classifier, or of all of them."""
    chosen = [classifier] if classifier else list(Classifier.objects.order_by("pk"))
    inputs = list(dict.fromkeys(name for each in chosen for name in each.input_fields))
    reserved = {*COLUMNS_BEFORE, *COLUMNS_AFTER}
    if clash := next((name for name in inputs if name in reserved), None):
        raise InvalidInput(f"A classifier's input field is called {clash!r}, as a column of the export is.")
    return [*COLUMNS_BEFORE, *inputs, *COLUMNS_AFTER]


def interactions_to_export(classifier: Classifier | None = None) -> Iterator[dict[str, Any]]:
    """Every interaction with its newest feedback, as flat rows in the order of their ids. Who asked is a pseudonym, and
    who gave the feedback is named as the table names its source."""
    rows = UserInteraction.objects.select_related("classifier", "version__classifier", "subject").order_by("pk")
    rows = rows.filter(classifier=classifier) if classifier else rows
    after: UUID | None = None
    while some := list((rows.filter(pk__gt=after) if after else rows)[:EXPORTED]):
        spoken = _newest_feedback(some)
        for row in some:
            feedback = spoken.get(row.pk)
            yield {
                **row.fields,
                "id": str(row.pk),
                "created_at": row.created_at.isoformat(),
                "classifier": row.classifier.slug,
                "model_version": row.version.ref if row.version else "",
                "label": row.answered,
                "confidence": round(row.confidence, 6),
                "rating": row.rating,
                "comment": row.comment,
                "correct_label": row.correction,
                "feedback_source": feedback.source if feedback else "",
                "feedback_at": feedback.said_at.isoformat() if feedback and feedback.said_at else "",
                "reviewed_label": row.reviewed_label,
                "pseudonym": row.subject.pseudonym if row.subject else "",
            }
        after = some[-1].pk


def _newest_feedback(rows: Sequence[UserInteraction]) -> dict[UUID, Feedback]:
    """{interaction: the newest feedback that says what the interaction shows}."""
    shown = {row.pk: (row.rating, row.comment, row.correction) for row in rows}
    spoken = Feedback.objects.filter(interaction__in=shown).order_by("updated_at", "pk")
    return {
        one.interaction_id: one
        for one in spoken
        if shown[one.interaction_id] == (one.rating, one.comment, one.correct_label)
    }
