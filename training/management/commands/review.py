"""`manage.py review SLUG`: the review desk in the terminal, with the same queue."""

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

PROMPT = "[a]pprove, [r]eject, a label to relabel, [s]kip, [u]ndo, [q]uit: "
MULTI_LABEL_PROMPT = (
    "[a]pprove, [r]eject, the right labels with | between them (| alone: none), [s]kip, [u]ndo, [q]uit: "
)
DECIDED, SKIPPED, UNDONE, QUIT = "decided", "skipped", "undone", "quit"
CHOICES: dict[str, str] = {
    "a": Review.Verdict.APPROVE,
    "r": Review.Verdict.REJECT,
    "s": SKIPPED,
    "": SKIPPED,
    "u": UNDONE,
    "q": QUIT,
}
_AT_ONCE = 500


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
        reviewer, limit = self._reviewer(options["reviewer"]), options["limit"]
        if limit is not None and limit < 1:
            raise CommandError("--limit: at least 1.")
        if not services.waiting_for(reviewer, classifier).exists():
            self.stdout.write("Nothing waits for review.")
        elif options["approve_all"]:
            decided = self._approve(services.waiting_for(reviewer, classifier), reviewer, limit)
            self.stdout.write(f"{decided} approved by {reviewer.get_username()}.")
        else:
            decided = self._ask(classifier, reviewer, limit)
            waiting = TrainingDataItem.objects.filter(classifier=classifier, status=TrainingDataItem.Status.REVIEW)
            self.stdout.write(f"{decided} decided, {waiting.count()} still wait.")

    def _approve(self, waiting: "QuerySet[TrainingDataItem]", reviewer: Any, limit: int | None) -> int:
        """Approve the first `limit` of the queue, those that nobody gave a label yet left alone."""
        keys = list(waiting.exclude(label="").values_list("pk", flat=True)[:limit])
        decided = 0
        for start in range(0, len(keys), _AT_ONCE):
            items = TrainingDataItem.objects.filter(pk__in=keys[start : start + _AT_ONCE])
            decided += services.items_review(items, reviewer=reviewer, verdict=Review.Verdict.APPROVE)
        return decided

    def _reviewer(self, username: str) -> Any:
        users = get_user_model()._default_manager.filter(is_active=True)
        user = users.filter(username=username) if username else users.filter(is_superuser=True).order_by("pk")
        found = user.first()
        if found is None:
            who = f"no active user {username!r}" if username else "no superuser"
            raise CommandError(f"There is {who}; name a reviewer with --as, or make one with createsuperuser.")
        return found

    def _ask(self, classifier: Classifier, reviewer: Any, limit: int | None) -> int:
        """One item after the other, in the order of the review desk; how many were decided."""
        decided = shown = 0
        item = services.desk_next(reviewer, classifier=classifier)
        while item is not None and (limit is None or shown < limit):
            self._show(classifier, item)
            outcome, again = self._judge(classifier, item, reviewer)
            if outcome == QUIT:
                break
            decided += {DECIDED: 1, UNDONE: -1}.get(outcome, 0)
            shown += outcome != UNDONE
            item = again or services.desk_next(reviewer, classifier=classifier)
        return max(decided, 0)

    def _show(self, classifier: Classifier, item: TrainingDataItem) -> None:
        self.stdout.write("")
        for name, text in item.fields.items():
            self.stdout.write(f"{name}: {plain(text)}")
        if item.label:
            shown = ", ".join(item.label_parts) or "none of the labels"
            self.stdout.write(f"label: {shown}   ({plain(item.reason)})")
        else:
            self.stdout.write("label: none yet, say what it is   (drawn at random)")
        if item.why and item.label:
            self.stdout.write(f"why here: {item.get_why_display()}")
        self.stdout.write(f"labels: {', '.join(classifier.labels)}")

    def _judge(
        self, classifier: Classifier, item: TrainingDataItem, reviewer: Any
    ) -> tuple[str, TrainingDataItem | None]:
        """Ask until there is a verdict that can be meant, and pass it on; what was done, and the item that an undo
        brought back."""
        seen = services.item_state(item)
        while True:
            verdict, label = self._verdict(classifier)
            try:
                if verdict == UNDONE:
                    return UNDONE, services.review_undo(reviewer)
                if verdict == SKIPPED:
                    services.desk_skip(item, reviewer)
                elif verdict != QUIT:
                    services.item_review(item, reviewer=reviewer, verdict=verdict, label=label, seen=seen)
                    return DECIDED, None
            except KalimtakError as error:
                self.stdout.write(error.message)
                if error.code == "decided_meanwhile":
                    return SKIPPED, None
            else:
                return verdict, None

    def _verdict(self, classifier: Classifier) -> tuple[str, str]:
        """(verdict, label), or one of `SKIPPED`, `UNDONE` and `QUIT` and an empty text."""
        rules = LabelRules(tuple(classifier.labels), multi_label=classifier.multi_label)
        while True:
            try:
                answer = input(MULTI_LABEL_PROMPT if classifier.multi_label else PROMPT).strip()
            except EOFError:
                return QUIT, ""
            label, problem = rules.read(answer)
            if classifier.labels and not problem:
                return Review.Verdict.RELABEL, label
            if answer in CHOICES:
                return CHOICES[answer], ""
            self.stdout.write(f"{plain(answer)!r} is neither a choice nor a label.")
