"""On the page of a curation's job: what the set was made of before it, and what after."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from kalimtak.core.admin import Panel
from kalimtak.core.admin.jobs import JobAdmin

KINDS = {"label": _("label"), "domain": _("domain"), "source": _("source")}


class SharesPanel(Panel):
    name = "shares"
    title = _("Shares of the set")
    template = "admin/training/shares.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return obj.kind == "curate" and bool((obj.result or {}).get("shares"))

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"sets": [{"name": slug, "rows": _rows(kinds)} for slug, kinds in obj.result["shares"].items() if kinds]}


def _rows(kinds: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    return [
        {"kind": KINDS.get(kind, kind), "name": name, "before": f"{before:.1%}", "after": f"{after:.1%}"}
        for kind, found in kinds.items()
        for name, (before, after) in found.items()
    ]


JobAdmin.panels.append(SharesPanel())
