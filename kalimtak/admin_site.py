"""The admin site: who may enter, what the sidebar lists, and the dashboard on its first page."""

from typing import Any

from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest
from unfold.sites import UnfoldAdminSite


class KalimtakAdminConfig(AdminConfig):
    default_site = "kalimtak.admin_site.KalimtakAdminSite"


class KalimtakAdminSite(UnfoldAdminSite):
    """unfold's site under our name."""


def stylesheet(request: HttpRequest) -> str:
    from django.templatetags.static import static

    return static("kalimtak/admin.css")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    return []


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    return context
