"""The classifier's page: what it is configured to do, who answers for it now, and who did before."""

import json
from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Prefetch
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from kalimtak.core import audit
from kalimtak.core.admin import (
    BaseModelAdmin,
    ConfirmedAction,
    Outcome,
    Panel,
    ReasonForm,
    actor_of,
    state_label,
)
from registry import services
from registry.admin.figures import figure
from registry.models import Classifier, Deployment
from registry.recipe import MODEL_TYPES, RECIPE_SECTIONS, Entry, RecipeError, parse_entry

DEPLOYMENTS_SHOWN = 10
WHERE = "classifier"
FIELD_OF = dict.fromkeys(RECIPE_SECTIONS, "recipe") | {"type": "family", "route": "slug"}


class PrettyJSONField(forms.JSONField):
    """JSON a line per key, letters of every script as they are."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 16, "dir": "ltr", "spellcheck": "false", "class": "k-code"})

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, InvalidJSONInput | str):
            return super().prepare_value(value)
        return json.dumps(value, ensure_ascii=False, indent=2)


class ClassifierForm(forms.ModelForm):
    """Reads recipe, labels and policy as strictly as `models.yaml`, and says at which field a key is wrong."""

    family = forms.ChoiceField(
        label=_("Type"), choices=[(name, name) for name in MODEL_TYPES], widget=UnfoldAdminSelectWidget()
    )

    label_config = PrettyJSONField(label=_("Label configuration"), required=False, empty_value={})
    recipe = PrettyJSONField(label=_("Recipe"), required=False, empty_value={})
    policy = PrettyJSONField(label=_("Policy"), required=False, empty_value={})

    class Meta:
        model = Classifier
        help_texts = {"slug": _("Also its route, /api/classify/…; it cannot be changed later.")}
        fields = ["slug", "name", "description", "family", "enabled", "is_default", "label_config", "recipe", "policy"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors:
            self._read_entry(data)
        other = Classifier.objects.filter(is_default=True).exclude(pk=self.instance.pk).first()
        if data.get("is_default") and other is not None:
            self.add_error("is_default", _("“%(other)s” is the default; clear it there first.") % {"other": other})
        return data

    def _read_entry(self, data: dict[str, Any]) -> None:
        """Parse the whole as an entry of `models.yaml`; keep what it read, every default written out."""
        raw = {
            "name": data["name"],
            "type": data["family"],
            # From models.yaml alone: what is posted here never names code to run.
            "loader": (self.instance.loader if data["family"] == "custom" else "") or None,
            "enabled": data["enabled"],
            "route": data.get("slug") or self.instance.slug,
            "description": data["description"] or None,
            "label_config": data["label_config"],
            "policy": data["policy"],
        }
        recipe = data["recipe"] or {}
        if not isinstance(recipe, dict) or set(recipe) - set(RECIPE_SECTIONS):
            self.add_error("recipe", _("Use the sections %(names)s.") % {"names": ", ".join(RECIPE_SECTIONS)})
            return
        try:
            entry = parse_entry(raw | recipe, where=WHERE)
        except RecipeError as error:
            self._place_error(str(error), str(data["name"]))
        else:
            self._take(entry, data)

    def _has_versions(self) -> bool:
        return self.instance.pk is not None and self.instance.versions.exists()

    def _place_error(self, message: str, name: str) -> None:
        message = message.removeprefix(f"{WHERE} ({name}): ").removeprefix(f"{WHERE}: ")
        section = message.split(":")[0].split(".")[0]
        field = FIELD_OF.get(section, section)
        self.add_error(field if field in self.fields else None, message)

    def _take(self, entry: Entry, data: dict[str, Any]) -> None:
        before = self.initial.get("label_config") or {}
        if entry.labels.multi_label != bool(before.get("multi_label")) and self._has_versions():
            self.add_error("label_config", _("multi_label cannot be changed once there are trained versions."))
            return
        for key, problem in self._helper_problems(entry) if entry.enabled else ():
            self.add_error("policy", f"policy.{key}: {problem}.")
        data |= {
            "recipe": entry.recipe.to_dict(),
            "label_config": entry.labels.to_dict(),
            "policy": entry.policy.to_dict(),
        }
        self.instance.input_fields = list(entry.recipe.data.input_fields)
        self.instance.label_field = entry.recipe.data.label_field
        if entry.labels.labels:
            self.instance.labels = list(entry.labels.labels)

    def _helper_problems(self, entry: Entry) -> Iterator[tuple[str, str]]:
        labels = entry.labels.labels or self.instance.labels
        asked = services.Asked(entry.route, labels, entry.recipe.data.input_fields, entry.labels.multi_label)
        return services.helper_problems(asked, entry.policy)


class LivePanel(Panel):
    """Who answers now, with its figures, and the deployments before."""

    name = "live"
    title = _("Who answers")
    template = "admin/registry/live.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        deployments = obj.deployments.select_related("version__classifier")
        live = deployments.live().production().first()
        return {
            "live": live,
            "macro_f1": figure("macro_f1", live.version.metrics.get("macro_f1")) if live else "",
            "deployments": deployments[:DEPLOYMENTS_SHOWN],
        }


class Rollback(ConfirmedAction):
    """Back to the production version before this one."""

    name = "rollback"
    label = _("Roll back")
    question = _("The version that answered before takes over at once, and this one counts as rolled back from.")
    permission = "registry.rollback_modelversion"
    icon = "undo"
    dangerous = True
    form_class = ReasonForm

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.deployments.count() > 1

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        live = services.live_version(obj)
        return [(_("Classifier"), obj), (_("Answers now"), live.ref if live else _("nobody"))]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        deployment = services.version_rollback(obj, actor=actor_of(request), reason=data["reason"])
        return Outcome(str(_("%(version)s answers now.") % {"version": deployment.version}))


@admin.register(Classifier)
class ClassifierAdmin(BaseModelAdmin):
    form = ClassifierForm
    list_display = ["slug", "name", "family", "live_shown", "enabled", "is_default"]
    list_filter = ["enabled", "family"]
    search_fields = ["slug", "name"]
    readonly_fields = ["route", "labels_shown", "reads", "label_field"]
    panels = [LivePanel()]
    confirmed_actions = [Rollback()]
    empty_text = _("No classifiers yet. Describe them in models.yaml and run `manage.py sync_models`.")
    configuration = (
        (_("Labels"), {"fields": ["labels_shown", "reads", "label_field", "label_config"]}),
        (_("How it trains and answers"), {"fields": ["recipe", "policy"]}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        live = Deployment.objects.live().production().select_related("version__classifier")
        return super().get_queryset(request).prefetch_related(Prefetch("deployments", live, to_attr="live_deployments"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        identity = ["route" if obj else "slug", "name", "description", "family", "enabled", "is_default"]
        return [(None, {"fields": identity}), *self.configuration]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its versions and interactions point at it; `enabled` takes it out of service

    def save_model(self, request: HttpRequest, obj: Classifier, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        action = "classifier.change" if change else "classifier.add"
        audit.record(actor_of(request), action, f"classifier {obj.slug}", fields=form.changed_data)
        services.cascades_queue([obj], actor=actor_of(request))

    @admin.display(description=_("answers now"))
    def live_shown(self, classifier: Any) -> SafeString | str:
        for deployment in classifier.live_deployments:
            return state_label("production", deployment.version.ref)
        return state_label("", _("no version yet"))

    @admin.display(description=_("route"))
    def route(self, classifier: Classifier) -> SafeString:
        return format_html("<code>/api/classify/{}</code>", classifier.slug)

    @admin.display(description=_("input fields"))
    def reads(self, classifier: Classifier) -> str:
        return ", ".join(classifier.input_fields) or "–"

    @admin.display(description=_("labels"))
    def labels_shown(self, classifier: Classifier) -> SafeString:
        return format_html('<span dir="auto">{}</span>', ", ".join(classifier.labels) or "–")
