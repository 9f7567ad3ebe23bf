"""How far reviewers agree, by label and by pair, and what the random sample says of the model."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _

from registry.models import Classifier
from training import services
from training.agreement import SMALL
from training.services.agreements import REJECTED

# Landis & Koch, Biometrics 33 (1977): the words that people know these figures by.
WORDS = (
    (0.8, _("almost perfect")),
    (0.6, _("substantial")),
    (0.4, _("moderate")),
    (0.2, _("fair")),
    (0.0, _("slight")),
)


def shown(value: float | None) -> dict[str, Any]:
    """A coefficient with the word for it; a dash where there is nothing to compare."""
    if value is None:
        return {"figure": "–", "word": ""}
    word = next((word for least, word in WORDS if value > least), _("no better than chance"))
    return {"figure": f"{value:.2f}", "word": word}


class AgreementPage:
    """Adds `agreement/` (GET)."""

    admin_site: Any

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.agreement_view)
        return [
            path("agreement/", view, name="training_trainingdataitem_agreement"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    def agreement_view(self, request: HttpRequest) -> HttpResponse:
        self.require_reviewer(request)  # type: ignore[attr-defined]
        classifier = self.chosen_classifier(request)  # type: ignore[attr-defined]
        context = {**self.page_context(request), "title": _("Agreement of reviewers")}  # type: ignore[attr-defined]
        if classifier is not None:
            context |= self.figures(classifier)
        return TemplateResponse(request, "admin/training/agreement.html", context)

    def figures(self, classifier: Classifier) -> dict[str, Any]:
        report = services.agreement_report(classifier)
        found, names = report.figures, report.names
        return {
            "classifier": classifier,
            "classifiers": Classifier.objects.all(),
            "second_share": f"{classifier.get_policy().review.second_share:.0%}",
            "approve": classifier.get_policy().review.approve,
            "found": found,
            "alpha": shown(found.alpha),
            "small": SMALL,
            "accuracy": report.accuracy,
            "labels": [
                {
                    "parts": () if one.label == REJECTED else classifier.label_parts(one.label),
                    "is_rejected": one.label == REJECTED,
                    "texts": one.texts,
                    "is_small": one.is_small,
                    **shown(one.alpha),
                }
                for one in found.labels
            ],
            "pairs": [
                {
                    "people": f"{names.get(pair.first, pair.first)} · {names.get(pair.second, pair.second)}",
                    "texts": pair.texts,
                    "same": f"{pair.same:.0%}",
                    "is_small": pair.is_small,
                    **shown(pair.kappa),
                }
                for pair in found.pairs
            ],
        }
