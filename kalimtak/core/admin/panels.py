"""Panels: parts of an object's page that any app may add, redrawn every two seconds while they are live."""

from typing import Any

from django.db.models import Model
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString


class Panel:
    """One box on an object's page. A subclass names its template, which extends `admin/kalimtak/panel.html`.

    `name` is unique on the page and part of the address under which a live panel is fetched again. `permission`, where
    given, is asked for beside the right to see the page.
    """

    name: str
    title: Any = ""
    template: str
    permission = ""
    is_quiet = False  # nobody wants to hear all of it again whenever a figure moves

    def is_shown(self, request: HttpRequest, obj: Model) -> bool:
        return True

    def is_live(self, obj: Model) -> bool:
        """Whether it may still change by itself; when it no longer does, the whole page is loaded once more."""
        return False

    def context(self, request: HttpRequest, obj: Model) -> dict[str, Any]:
        return {}

    def is_permitted(self, request: HttpRequest) -> bool:
        return not self.permission or request.user.has_perm(self.permission)

    def is_allowed(self, request: HttpRequest, obj: Model) -> bool:
        return self.is_permitted(request) and self.is_shown(request, obj)

    def render(self, request: HttpRequest, obj: Model) -> SafeString:
        opts = obj._meta
        url = reverse(f"admin:{opts.app_label}_{opts.model_name}_panel", args=[obj.pk, self.name])
        frame = {"panel": self, "object": obj, "panel_is_live": self.is_live(obj), "panel_url": url}
        # The frame last: a panel that names a figure of its own as the frame does must not become live by it.
        return render_to_string(self.template, self.context(request, obj) | frame, request)
