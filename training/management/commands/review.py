"""`manage.py review SLUG`: look at what waits for a reviewer, in the terminal."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet

from kalimtak.core.commands import KalimtakCommand, plain
from kalimtak.core.errors import KalimtakError
from registry.models import Classifier
from registry.services import classifier_get
from training import services
from training.analysis import LabelRules
from training.models import Review, TrainingDataItem

PROMPT = "[a]pprove, [r]eject, a label to relabel, [s]kip, [q]uit: "
MULTI_LABEL_PROMPT = "[a]pprove, [r]eject, the right labels with | between them (| alone: none), [s]kip, [q]uit: "


class Command(KalimtakCommand):
    help = "Shows the items that wait for review one by one, or approves all of them."
    example = "manage.py review emotion --as rami --limit 20"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("classifier", metavar="SLUG")
        parser.add_argument("--approve-all", action="store_true", help="without asking")
        parser.add_argument("--limit", type=int, help="at most so many items")
        parser.add_argument("--as", dest="reviewer", default="", metavar="USER", help="default: the first superuser")

    def handle(self, *args: Any, **options: Any) -> None:
        classifier = classifier_get(options["classifier"])
        reviewer = self._reviewer(options["reviewer"])
        waiting = TrainingDataItem.objects.filter(classifier=classifier, status=TrainingDataItem.Status.REVIEW)
        items = self._first(waiting.order_by("pk"), options["limit"])
        if not items.exists():
            self.stdout.write("Nothing waits for review.")
        elif options["approve_all"]:
            decided = services.items_review(items, reviewer=reviewer, verdict=Review.Verdict.APPROVE)
            self.stdout.write(f"{decided} approved by {reviewer.get_username()}.")
        else:
            decided = self._ask(classifier, items, reviewer)
            self.stdout.write(f"{decided} decided, {waiting.count()} still wait.")

    def _first(self, waiting: "QuerySet[TrainingDataItem]", limit: int | None) -> "QuerySet[TrainingDataItem]":
        """The first `limit` of `waiting`, told by their last key: a list of all keys may be too long for a query."""
        if limit is None:
            return waiting
        if limit < 1:
            raise CommandError("--limit: at least 1.")
        last = waiting.values_list("pk", flat=True)[limit - 1 : limit].first()
        return waiting if last is None else waiting.filter(pk__lte=last)

    def _reviewer(self, username: str) -> Any:
        users = get_user_model()._default_manager.filter(is_active=True)
        user = users.filter(username=username) if username else users.filter(is_superuser=True).order_by("pk")
        found = user.first()
        if found is None:
            who = f"no active user {username!r}" if username else "no superuser"
            raise CommandError(f"There is {who}; name a reviewer with --as, or make one with createsuperuser.")
        return found

    def _ask(self, classifier: Classifier, items: "QuerySet[TrainingDataItem]", reviewer: Any) -> int:
        decided = 0
        for item in items.order_by("pk"):
            self.stdout.write("")
            for name, text in item.fields.items():
                self.stdout.write(f"{name}: {plain(text)}")
            shown = ", ".join(item.label_parts) or "none of the labels"
            self.stdout.write(f"label: {shown}   ({plain(item.reason)})")
            self.stdout.write(f"labels: {', '.join(classifier.labels)}")
            while (verdict := self._verdict(classifier)) is not None:
                if verdict == ("", ""):
                    return decided
                try:
                    services.item_review(item, reviewer=reviewer, verdict=verdict[0], label=verdict[1])
                    decided += 1
                    break
                except KalimtakError as error:
                    self.stdout.write(error.message)
        return decided

    def _verdict(self, classifier: Classifier) -> tuple[str, str] | None:
        """(verdict, label); None to skip, two empty texts to quit."""
        rules = LabelRules(tuple(classifier.labels), multi_label=classifier.multi_label)
        while True:
            try:
                answer = input(MULTI_LABEL_PROMPT if classifier.multi_label else PROMPT).strip()
            except EOFError:
                return "", ""
            label, problem = rules.read(answer)
            if classifier.labels and not problem:
                return Review.Verdict.RELABEL, label
            if answer in ("s", ""):
                return None
            known = {"a": (Review.Verdict.APPROVE, ""), "r": (Review.Verdict.REJECT, ""), "q": ("", "")}
            if answer in known:
                return known[answer]
            self.stdout.write(f"{plain(answer)!r} is neither a choice nor a label.")
