"""API keys: made here and shown once, revoked here, never changed."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
)

from kalimtak.core import auth
from kalimtak.core.admin.base import ReadOnlyModelAdmin
from kalimtak.core.admin.confirm import ConfirmedAction, Outcome, error_lines
from kalimtak.core.admin.display import actor_of, state_label, when
from kalimtak.core.errors import KalimtakError
from kalimtak.core.models import ApiKey, Scope


class ApiKeyForm(forms.Form):
    """What a new key may do, how often and until when."""

    name = forms.CharField(
        label=_("Name"),
        max_length=100,
        help_text=_("Who or what will use it."),
        widget=UnfoldAdminTextInputWidget(attrs={"dir": "auto"}),
    )
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"),
        choices=Scope.choices,
        initial=[Scope.PREDICT, Scope.FEEDBACK],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
    )
    rate = forms.RegexField(
        r"^\d+/[smhd]$",
        label=_("Rate"),
        required=False,
        help_text=_("Such as 600/m; empty: the default."),
        error_messages={"invalid": _("Use a rate such as 600/m (s, m, h or d).")},
        widget=UnfoldAdminTextInputWidget(),
    )
    expires_at = forms.SplitDateTimeField(
        label=_("Expires"), required=False, widget=UnfoldAdminSplitDateTimeWidget(), help_text=_("Empty: never.")
    )

    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment and moment <= timezone.now():
            raise forms.ValidationError(_("That moment has passed."))
        return moment


class RevokeKey(ConfirmedAction):
    name = "revoke"
    label = _("Revoke")
    question = _("Every request with this key is refused from now on. A revoked key cannot be brought back.")
    permission = "core.change_apikey"
    icon = "key_off"
    dangerous = True

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.revoked_at is None

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        return [(_("Key"), obj), (_("Last used"), when(obj.last_used_at))]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        auth.key_revoke(obj, actor=actor_of(request))
        return Outcome(str(_("The key was revoked.")))


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyModelAdmin):
    list_display = ["name", "prefix", "scopes_shown", "state_shown", "last_used", "created_by"]
    list_select_related = ["created_by"]
    search_fields = ["name", "=prefix"]
    fields = ["name", "prefix", "scopes_shown", "rate", "expires_at", "revoked_at", "last_used_at", "created_at"]
    confirmed_actions = [RevokeKey()]
    empty_text = _("No client can call the API with a key yet. Make one for each client.")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("core.add_apikey")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ApiKeyForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                return self.create(request, form.cleaned_data)
            except KalimtakError as error:
                form.add_error(None, error_lines(error))
        return self.page(request, "admin/core/apikey/add.html", {"title": _("Add API key"), "form": form})

    def create(self, request: HttpRequest, data: dict[str, Any]) -> HttpResponse:
        """Make the key and answer with the only page that ever shows it."""
        scopes = data.pop("scopes")
        key, plain = auth.key_create(data.pop("name"), scopes, actor=actor_of(request), user=request.user, **data)
        response = self.page(request, "admin/core/apikey/created.html", {"title": key, "key": key, "plain": plain})
        response["Cache-Control"] = "no-store"
        return response

    def page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media}
        return TemplateResponse(request, template, shared | context)

    @admin.display(description=_("scopes"))
    def scopes_shown(self, key: ApiKey) -> str:
        return ", ".join(str(dict(Scope.choices).get(scope, scope)) for scope in key.scopes)

    @admin.display(description=_("state"))
    def state_shown(self, key: ApiKey) -> SafeString:
        if key.revoked_at:
            return state_label("revoked", _("revoked"))
        if key.expires_at and key.expires_at <= timezone.now():
            return state_label("failed", _("expired"))
        return state_label("ok", _("valid"))

    @admin.display(description=_("last used"), ordering="last_used_at")
    def last_used(self, key: ApiKey) -> Any:
        return when(key.last_used_at)
