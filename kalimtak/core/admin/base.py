"""The bases of every admin class: lists that stay quick on big tables, panels and confirmed verbs on their pages."""

from typing import Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin, TabularInline

from kalimtak.core.admin.confirm import ConfirmedAction
from kalimtak.core.admin.panels import Panel

COUNT_AT_MOST = 10_000


class CappedPaginator(Paginator):
    """Counts at most 10,000 rows, so that a list of ten million opens as fast; filters reach what lies beyond."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return rows.order_by()[:COUNT_AT_MOST].count()
        return len(rows)


class BaseModelAdmin(ModelAdmin):
    """Subclasses list `panels` and `confirmed_actions`; an app above may append its own to the class."""

    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_filter_sheet = True
    list_before_template = "admin/kalimtak/list_top.html"
    change_form_outer_before_template = "admin/kalimtak/object_top.html"
    empty_text: Any = ""
    list_intro: Any = ""
    panels: list[Panel] = []
    confirmed_actions: list[ConfirmedAction] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.panels = list(cls.panels)
        cls.confirmed_actions = list(cls.confirmed_actions)

    def get_urls(self) -> list[URLPattern]:
        stem = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        verbs = [
            path(
                f"<path:object_id>/{action.name}/" if action.per_object else f"{action.name}/",
                view(self.confirm_view),
                {"name": action.name},
                name=f"{stem}_{action.name}",
            )
            for action in self.confirmed_actions
        ]
        panel = path("<path:object_id>/panel/<slug:name>/", view(self.panel_view), name=f"{stem}_panel")
        return [*verbs, panel, *super().get_urls()]

    def visible_object(self, request: HttpRequest, object_id: str) -> Model:
        """The object if it exists and may be seen: 404 and 403 otherwise."""
        obj = self.get_object(request, object_id)
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        if obj is None:
            raise Http404(object_id)
        return obj

    def confirm_view(self, request: HttpRequest, name: str, object_id: str = "") -> HttpResponse:
        action = next(action for action in self.confirmed_actions if action.name == name)
        if action.per_object:
            return action.view(self, request, self.visible_object(request, object_id))
        if not self.has_view_permission(request):
            raise PermissionDenied
        return action.view(self, request, None)

    def panel_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        obj = self.visible_object(request, object_id)
        panel = next((panel for panel in self.panels if panel.name == name), None)
        if panel is None:
            raise Http404(name)
        if not panel.is_permitted(request):
            raise PermissionDenied
        is_shown = panel.is_shown(request, obj)
        response = HttpResponse(panel.render(request, obj) if is_shown else "")
        if not is_shown or not panel.is_live(obj):
            response["HX-Refresh"] = "true"  # the buttons and figures around it have changed as well
        return response

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        if any("\x00" in word for name, values in request.GET.lists() for word in (name, *values)):
            raise IncorrectLookupParameters  # shown without filters; PostgreSQL would fail over NUL
        return super().get_changelist_instance(request)

    def response_action(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        request.POST = request.POST.copy()
        request.POST.setlist(ACTION_CHECKBOX_NAME, self.chosen_keys(request))
        return super().response_action(request, queryset)

    def chosen_keys(self, request: HttpRequest) -> list[str]:
        """The keys ticked on a list, without those that no row can have: the database would fail over them."""
        return [key for key in request.POST.getlist(ACTION_CHECKBOX_NAME) if self.could_be_key(key)]

    def could_be_key(self, key: str) -> bool:
        try:
            value = self.opts.pk.to_python(key)
        except (ValidationError, ValueError):
            return False
        return not isinstance(value, int) or 0 < value < 2**63

    def buttons(self, request: HttpRequest, obj: Model | None) -> list[dict[str, Any]]:
        """The verbs that this user may use on this object (None: on the list) now."""
        stem = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        return [
            {"action": action, "url": reverse(f"{stem}_{action.name}", args=[obj.pk] if obj else [])}
            for action in self.confirmed_actions
            if action.per_object == (obj is not None) and action.is_allowed(request) and action.is_offered(request, obj)
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"buttons": self.buttons(request, None), "list_intro": self.list_intro}
        return super().changelist_view(request, context | (extra_context or {}))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Model | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context["buttons"] = self.buttons(request, obj)
            context["panels"] = [panel.render(request, obj) for panel in self.panels if panel.is_allowed(request, obj)]
        return super().render_change_form(request, context, add, change, form_url, obj)


class ReadOnlyModelAdmin(BaseModelAdmin):
    """Rows that only services write: to be looked at, never edited by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class BaseTabularInline(TabularInline):
    """Read-only rows of a related table on an object's page."""

    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
