"""Verbs on admin pages: a button leads to a page that says what will happen, and only its POST calls the service."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from kalimtak.core.errors import KalimtakError


class Outcome(NamedTuple):
    """What a verb did, in words, and where the reader goes next (empty: to the object's page)."""

    message: str
    url: str = ""


class ReasonForm(forms.Form):
    """Asks why, for the audit trail."""

    reason = forms.CharField(
        label=_("Reason"), max_length=300, widget=UnfoldAdminTextInputWidget(attrs={"dir": "auto"})
    )


class ConfirmedAction:
    """A verb with its own permission and a page that asks first.

    `per_object` verbs stand on an object's page at `<pk>/<name>/`, the others on the list at `<name>/`. A
    `KalimtakError` of the service is shown on the same page, with what was typed.
    """

    name: str
    label: Any
    question: Any = ""
    permission: str
    icon = "play_arrow"
    dangerous = False
    per_object = True
    form_class: type[forms.Form] = forms.Form
    template = "admin/kalimtak/confirm.html"

    def is_offered(self, request: HttpRequest, obj: Model | None) -> bool:
        """Whether the present state of the object lets it make sense."""
        return True

    def initial(self, request: HttpRequest, obj: Model | None) -> dict[str, Any]:
        return {}

    def make_form(self, request: HttpRequest, obj: Model | None) -> forms.Form:
        posted = (request.POST, request.FILES) if request.method == "POST" else (None, None)
        return self.form_class(*posted, initial=self.initial(request, obj))

    def facts(self, request: HttpRequest, obj: Model | None) -> Sequence[tuple[Any, Any]]:
        """What the person should know before saying yes, as pairs of name and value."""
        return ()

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        """Call the one service behind this verb."""
        raise NotImplementedError

    def is_allowed(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.permission)

    def view(self, model_admin: Any, request: HttpRequest, obj: Any) -> HttpResponse:
        if not self.is_allowed(request):
            raise PermissionDenied
        form = self.make_form(request, obj)
        if request.method == "POST" and form.is_valid():
            try:
                outcome = self.perform(request, obj, form.cleaned_data)
            except KalimtakError as error:
                form.add_error(None, error_lines(error))
            else:
                if obj is not None:
                    model_admin.log_change(request, obj, outcome.message)
                messages.success(request, outcome.message)
                return HttpResponseRedirect(outcome.url or back_url(model_admin, obj))
        return self.ask(model_admin, request, obj, form)

    def ask(self, model_admin: Any, request: HttpRequest, obj: Model | None, form: forms.Form) -> HttpResponse:
        context = {
            **model_admin.admin_site.each_context(request),
            "title": self.label,
            "opts": model_admin.opts,
            "media": model_admin.media + form.media,
            "action": self,
            "object": obj,
            "form": form,
            "facts": self.facts(request, obj),
            "back_url": back_url(model_admin, obj),
        }
        return TemplateResponse(request, self.template, context)


def back_url(model_admin: Any, obj: Model | None) -> str:
    """The object's page; the list where there is no object."""
    name = f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}"
    return reverse(f"{name}_changelist") if obj is None else reverse(f"{name}_change", args=[obj.pk])


def error_lines(error: KalimtakError) -> list[str]:
    """A service's refusal as lines for a form: the message, then what is wrong where and it does not say itself."""
    told = error.message
    lines = [f"{place}: {line}" for place, reasons in error.fields.items() for line in reasons if line not in told]
    return [error.message, *lines]
