"""`manage.py predict`: ask a classifier from the terminal, one text, many, a file, or in a conversation."""

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser

from inference.classifier import LocalClassifier, Text
from inference.crew import usable_cores
from inference.files import file_answer
from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.errors import Conflict, InvalidInput, KalimtakError
from kalimtak.demo import samples_load
from registry.models import Classifier
from registry.services import classifier_get
from training.models import TrainingDataItem
from training.samples import SETS

BAR = 24
SHOWN = 5
LEAVE = ("quit", "exit", "q")


class Command(KalimtakCommand):
    help = (
        "Answers texts by the live version of a classifier. Without a text it asks for them one by one; where there "
        "is no version yet, it trains one first. Answers are recorded as interactions, those of a file are not."
    )
    example = (
        'manage.py predict emotion "What a lovely morning!"\n'
        '  manage.py predict clarity --question "Will you resign?" --context "No."\n'
        "  manage.py predict emotion --file texts.csv --output answers.csv"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "words", nargs="*", metavar="[SLUG] [TEXT …]", help="the classifier (else the default one), then texts"
        )
        parser.add_argument("--question", help="for a classifier that reads a question and its context")
        parser.add_argument("--context")
        parser.add_argument("--file", type=Path, metavar="FILE", help="answer every row of this CSV, TSV or JSONL")
        parser.add_argument(
            "--output",
            type=Path,
            metavar="FILE",
            help="write the file's answers here, not to stdout; interrupted, the same command goes on where it stopped",
        )
        parser.add_argument(
            "--processes", type=int, metavar="N", help="that answer a long file together (default: one per core)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        slug, texts = split_words(options["words"])
        inputs: list[Text] = [*texts, *pair(options["question"], options["context"])]
        if options["file"] and inputs:
            raise CommandError("Give texts or --file, not both.", returncode=2)
        if options["output"] and not options["file"]:
            raise CommandError("--output goes with --file.", returncode=2)
        if options["processes"] is not None and not (options["file"] and options["processes"] > 0):
            raise CommandError("--processes goes with --file and is at least 1.", returncode=2)
        classifier = self.classifier(classifier_get(slug), record=options["file"] is None)
        if options["file"]:
            processes = options["processes"] or usable_cores()
            self.answer_file(classifier, options["file"], options["output"], processes)
        elif inputs:
            if not slug:  # a mistyped classifier would otherwise be answered as a text without a word
                self.stderr.write(f"Asking the default classifier, {classifier.served.slug}.")
            for result in classifier.classify_many(inputs):
                self.show(classifier, result)
        else:
            self.converse(classifier)

    def classifier(self, row: Classifier, *, record: bool) -> LocalClassifier:
        """The live version; where there is no version at all, one is trained."""
        if not row.versions.exists():
            self.stderr.write(f"{row.slug} has no version yet, so one is trained now.")
            if not TrainingDataItem.objects.filter(classifier=row, status=TrainingDataItem.Status.APPROVED).exists():
                self.load_samples(row)
            call_command("train", row.slug, deploy=True, stdout=self.stderr, stderr=self.stderr)
        return LocalClassifier(row.slug, enable_backup=True, record=record)

    def load_samples(self, row: Classifier) -> None:
        if row.slug not in SETS:
            remedy = f"`manage.py import_dataset FILE --classifier {row.slug}` loads some"
            raise Conflict(f"{row.slug} has nothing to learn from; {remedy}.", code="no_data")
        self.stderr.write("It has no examples either, so the built-in sample set is loaded first.")
        with self.progress("Loading the sample set") as report:
            samples_load(row, report)

    def answer_file(self, classifier: LocalClassifier, source: Path, target: Path | None, processes: int) -> None:
        if not source.is_file():
            raise InvalidInput(f"There is no file {source}.")
        try:
            with self.progress(source.name) as report:
                summary = file_answer(
                    classifier,
                    source,
                    target,
                    out=self.stdout,
                    progress=lambda fraction: report(fraction, ""),
                    say=self.stderr.write,
                    processes=processes,
                )
        except KeyboardInterrupt:
            if target is not None:
                self.stderr.write("What is answered is kept: the same command goes on from there.")
            raise
        refused = f", {summary.refused} of them refused (see the column error)" if summary.refused else ""
        self.stderr.write(f"{summary.rows} rows answered by {classifier.version.ref}{refused}.")

    def converse(self, classifier: LocalClassifier) -> None:
        """Ask for one input after the other until `quit` or the end of the input."""
        names = classifier.served.input_fields
        self.stdout.write(f"{classifier.version.ref} is listening. `quit` or Ctrl-D leaves.")
        while True:
            try:
                given = {name: ask(f"{name}> ") for name in names}
            except (EOFError, Leave):
                self.stdout.write("")
                return
            try:
                self.show(classifier, classifier.classify(given))
            except KalimtakError as error:
                self.stdout.write(error.message)

    def show(self, classifier: LocalClassifier, result: dict[str, Any]) -> None:
        """The label and its share, or all labels with theirs, then a bar for each of the best scores."""
        given = result.get("labels", [result["final_label"]])
        said = ", ".join(self.worded(classifier, label, result["scores"][label]) for label in given)
        notes = [] if result["source"] == "model" else [f"by the {result['source']}"]
        remarks = f"  [{', '.join(notes + result['flags'])}]" if notes or result["flags"] else ""
        self.stdout.write(f"{said or 'none of the labels'}{remarks}")
        best = list(result["scores"].items())[:SHOWN]
        width = max(len(name) for name, _ in best)
        for name, share in best:
            self.stdout.write(f"  {name:<{width}} {'█' * round(share * BAR):<{BAR}} {share:7.2%}")

    def worded(self, classifier: LocalClassifier, label: str, share: float) -> str:
        """`😊 joy (93.10%)`."""
        emoji = emoji_of(classifier.served.descriptions.get(label, ""))
        return f"{emoji} {label} ({share:.2%})".strip()


class Leave(Exception):
    """The person has had enough."""


def ask(prompt: str) -> str:
    answer = input(prompt)
    if answer.strip().lower() in LEAVE:
        raise Leave
    return answer


def split_words(words: list[str]) -> tuple[str, list[str]]:
    """The first word is a classifier where one is called so; all others are texts."""
    if words and Classifier.objects.filter(slug=words[0]).exists():
        return words[0], words[1:]
    return "", words


def pair(question: str | None, context: str | None) -> list[Text]:
    if (question is None) != (context is None):
        raise CommandError("--question and --context go together.", returncode=2)
    return [] if question is None or context is None else [{"question": question, "context": context}]


def emoji_of(description: str) -> str:
    """The emoji that ends a label's description, if one does."""
    last = description.split()[-1:] or [""]
    return last[0] if last[0] and not last[0].isascii() and not any(map(str.isalnum, last[0])) else ""
