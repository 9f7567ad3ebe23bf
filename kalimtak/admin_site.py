"""The admin site: who may enter, what the sidebar lists, and the dashboard on its first page."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _
from unfold.dataclasses import Favicon
from unfold.sites import UnfoldAdminSite

from kalimtak.core.ratelimit import RateLimited, address_group, client_address, limit


class KalimtakAdminConfig(AdminConfig):
    default_site = "kalimtak.admin_site.KalimtakAdminSite"


class KalimtakAdminSite(UnfoldAdminSite):
    """unfold's site under our name."""

    index_title = _("Overview")

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        mark = Favicon(href=static("kalimtak/mark.svg"), rel="icon", type="image/svg+xml")
        return super().each_context(request) | {"site_favicons": [mark]}

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Tries are counted per address, so that passwords cannot be guessed at speed; 429 beyond the limit."""
        if request.method == "POST":
            value = address_group(client_address(request))
            try:
                limit(request, group="login", value=value, rate=settings.KALIMTAK_RATELIMIT_LOGIN)
            except RateLimited as refused:
                return self.too_many_logins(request, refused.retry_after or 60)
        return super().login(request, extra_context)

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Pages of the sidebar whose name holds `s`. unfold's own caches objects, which no cache of ours may hold."""
        term = request.GET.get("s", "").strip().lower()
        found = [
            {"title": item["title"], "description": group.get("title", ""), "link": item["link"]}
            for group in navigation(request)
            for item in group["items"]
            if term and term in str(item["title"]).lower()
        ]
        return TemplateResponse(request, "unfold/helpers/search_results.html", {"results": found})

    def too_many_logins(self, request: HttpRequest, seconds: int) -> HttpResponse:
        """The sign-in page again, saying when to come back."""
        messages.error(request, _("Too many attempts. Try again in %(seconds)d seconds.") % {"seconds": seconds})
        context = {**self.each_context(request), "title": _("Log in"), "form": self.login_form(request)}
        response = TemplateResponse(request, "admin/login.html", context, status=429)
        response["Retry-After"] = str(seconds)
        return response


# The sidebar follows the loop: (group, (title, icon, page, permission) of each entry).
NAVIGATION = (
    (
        _("Serve"),
        (
            (_("Classifiers"), "category", "registry_classifier", "registry.view_classifier"),
            (_("Model versions"), "deployed_code", "registry_modelversion", "registry.view_modelversion"),
            (_("Deployments"), "rocket_launch", "registry_deployment", "registry.view_deployment"),
        ),
    ),
    (
        _("Judge"),
        (
            (_("Interactions"), "forum", "interactions_userinteraction", "interactions.view_userinteraction"),
            (_("Feedback"), "thumbs_up_down", "interactions_feedback", "interactions.view_feedback"),
            (_("Training items"), "fact_check", "training_trainingdataitem", "training.view_trainingdataitem"),
            (_("Blocked words"), "block", "training_blockedword", "training.view_blockedword"),
        ),
    ),
    (
        _("Learn"),
        (
            (_("Data sets"), "database", "training_dataset", "training.view_dataset"),
            (_("Snapshots"), "photo_camera", "training_datasetsnapshot", "training.view_datasetsnapshot"),
            (_("Training runs"), "model_training", "training_trainingrun", "training.view_trainingrun"),
            (_("Evaluations"), "monitoring", "registry_evaluation", "registry.view_evaluation"),
        ),
    ),
    (
        _("Operate"),
        (
            (_("Alerts"), "notifications", "core_alert", "core.view_alert"),
            (_("Jobs"), "work_history", "core_job", "core.view_job"),
            (_("Schedules"), "schedule", "django_q_schedule", "django_q.view_schedule"),
            (_("API keys"), "key", "core_apikey", "core.view_apikey"),
            (_("Audit events"), "history_edu", "core_auditevent", "core.view_auditevent"),
            (_("Users"), "person", "auth_user", "auth.view_user"),
            (_("Roles"), "group", "auth_group", "auth.view_group"),
        ),
    ),
)


def stylesheet(request: HttpRequest) -> str:
    return static("kalimtak/admin.css")


def script(request: HttpRequest) -> str:
    return static("kalimtak/admin.js")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: only what this user may see, and no group without an entry."""
    may = request.user.has_perm
    overview = {"title": _("Overview"), "icon": "all_inclusive", "link": reverse_lazy("admin:index")}
    groups: list[dict[str, Any]] = [{"items": [overview]}]
    for title, entries in NAVIGATION:
        items = [
            {"title": name, "icon": icon, "link": reverse_lazy(f"admin:{page}_changelist")}
            for name, icon, page, permission in entries
            if may(permission)
        ]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the first page shows; see `kalimtak.dashboard`."""
    from kalimtak.dashboard import overview  # the site is imported before the tables exist

    return context | overview(request)
