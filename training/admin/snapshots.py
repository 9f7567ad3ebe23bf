"""Snapshots: what runs saw. Listed, looked through row by row, compared, taken away as a file."""

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget

from interactions.admin import snippet
from kalimtak.core import audit
from kalimtak.core.admin import ConfirmedAction, Panel, ReadOnlyModelAdmin, actor_of, labels_shown, when
from training import services
from training.admin.report import bars
from training.exporters import FORMATS, stream_rows
from training.models import DatasetSnapshot, SnapshotItem, TrainingDataItem
from training.services.comparisons import KINDS, snapshot_changes, snapshots_compare

LABELS_DRAWN = 50
COMPARED_WITH = 50  # earlier and later snapshots that are offered
CONTENT_HASH = re.compile("[0-9a-f]{0,64}")
KIND_NAMES = {"came": _("came"), "went": _("went"), "relabelled": _("changed label")}


def snapshot_rows_url(snapshot: DatasetSnapshot, **filters: str) -> str:
    query = "".join(f"&{name}__exact={value}" for name, value in filters.items())
    return f"{reverse('admin:training_snapshotitem_changelist')}?snapshot__id__exact={snapshot.pk}{query}"


class ContentPanel(Panel):
    """How many rows of each label went where, and why others were left out."""

    name = "content"
    title = _("What it holds")
    template = "admin/training/snapshot.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        splits = []
        for split, title in TrainingDataItem.Split.choices:
            counts = obj.counts.get(split, {})
            ordered = dict(sorted(counts.items(), key=lambda pair: -pair[1])[:LABELS_DRAWN])
            url = snapshot_rows_url(obj, split=split)
            splits.append({"title": title, "rows": sum(counts.values()), "labels": bars(ordered), "url": url})
        others = DatasetSnapshot.objects.filter(classifier=obj.classifier_id).exclude(pk=obj.pk)[:COMPARED_WITH]
        return {
            "splits": splits,
            "left_out": [(reason, count) for reason, count in obj.counts.get("left_out", {}).items() if count],
            "rows_url": snapshot_rows_url(obj),
            "runs": obj.runs.select_related("version__classifier", "classifier")[:20],
            "others": others,
        }


class DownloadForm(forms.Form):
    kind = forms.ChoiceField(
        label=_("Format"),
        choices=[(kind, kind.upper() if kind != "parquet" else "Parquet") for kind in FORMATS],
        widget=UnfoldAdminSelectWidget(),
        help_text=_("In CSV, texts that a spreadsheet would run as a formula get an apostrophe before them."),
    )


class Download(ConfirmedAction):
    """The rows as a file. People's texts leave the installation with it, which the audit trail notes."""

    name = "download"
    label = _("Download")
    question = _("The rows with their texts, labels and splits. Who took them away is noted in the audit trail.")
    permission = "training.view_trainingdataitem"
    icon = "download"
    form_class = DownloadForm

    def view(self, model_admin: Any, request: HttpRequest, obj: Any) -> HttpResponse:
        if not self.is_allowed(request):
            raise PermissionDenied
        form = self.make_form(request, obj)
        if request.method != "POST" or not form.is_valid():
            return self.ask(model_admin, request, obj, form)
        kind = form.cleaned_data["kind"]
        audit.record(actor_of(request), "snapshot.download", f"snapshot {obj.digest[:12]}", format=kind)
        columns = services.export_columns(obj.classifier, last="weight")
        blocks = stream_rows(kind, columns, services.snapshot_to_export(obj))
        name = f"{obj.classifier.slug}-{obj.digest[:12]}.{kind}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingHttpResponse(blocks, content_type=FORMATS[kind][0], headers=headers)  # type: ignore[return-value]


@admin.register(DatasetSnapshot)
class DatasetSnapshotAdmin(ReadOnlyModelAdmin):
    list_display = ["digest_shown", "classifier", "sizes", "replayed", "created"]
    list_filter = ["classifier"]
    list_select_related = ["classifier"]
    search_fields = ["digest"]
    panels = [ContentPanel()]
    confirmed_actions = [Download()]
    fields = ["classifier", "digest", "golden_digest", "created_at"]
    empty_text = _("Every run freezes what it sees; none has started yet.")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.compare_view)
        return [path("<path:object_id>/compare/", view, name="training_datasetsnapshot_compare"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier")

    def compare_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Against an older snapshot, the one before unless another is named: counts, and a page of one kind."""
        newer: Any = self.visible_object(request, object_id)
        family = DatasetSnapshot.objects.filter(classifier=newer.classifier_id).exclude(pk=newer.pk)
        asked, kind = request.GET.get("with", ""), request.GET.get("kind", KINDS[0])
        before = family.filter(pk__lt=newer.pk).first() if not asked else None
        if asked:
            before = family.filter(pk=int(asked)).first() if asked.isdecimal() and len(asked) < 18 else None
        after = request.GET.get("after", "")
        if kind not in KINDS or not CONTENT_HASH.fullmatch(after) or (asked and before is None):
            raise Http404(object_id)
        context = {
            **self.admin_site.each_context(request),
            "title": _("What changed"),
            "opts": self.opts,
            "media": self.media,
            "newer": newer,
            "older": before,
            "others": family[:COMPARED_WITH],
            "kind": kind,
            "kinds": [],
        }
        if before is not None:
            counts = snapshots_compare(before, newer)
            page = snapshot_changes(before, newer, kind, after=after)
            context["kinds"] = [{"name": name, "title": KIND_NAMES[name], "count": counts[name]} for name in KINDS]
            context["changes"] = [_change_shown(change, newer) for change in page.changes]
            context["next"] = page.after
        return TemplateResponse(request, "admin/training/compare_snapshots.html", context)

    @admin.display(description=_("digest"))
    def digest_shown(self, snapshot: DatasetSnapshot) -> str:
        return snapshot.digest[:12]

    @admin.display(description=_("training · validation · golden"))
    def sizes(self, snapshot: DatasetSnapshot) -> str:
        splits = (snapshot.counts.get(split, {}) for split in TrainingDataItem.Split.values)
        return " · ".join(f"{sum(counts.values()):,}" for counts in splits)

    @admin.display(description=_("rehearsal share"), ordering="replay_share")
    def replayed(self, snapshot: DatasetSnapshot) -> str:
        return f"{snapshot.replay_share:.0%}"

    @admin.display(description=_("frozen"), ordering="created_at")
    def created(self, snapshot: DatasetSnapshot) -> Any:
        return when(snapshot.created_at)


def _change_shown(change: Any, snapshot: DatasetSnapshot) -> dict[str, Any]:
    item = change.row.item
    parts = snapshot.classifier.label_parts
    return {
        "item": item,
        "text": snippet(item.fields) if item else "–",
        "label": labels_shown(parts(change.row.label)),
        "before": labels_shown(parts(change.other_label)) if change.other_label else "",
        "split": change.row.split,
        "why": change.why,
    }


@admin.register(SnapshotItem)
class SnapshotItemAdmin(ReadOnlyModelAdmin):
    """The frozen rows, reached from their snapshot."""

    list_display = ["text", "label_shown", "split", "weight", "why"]
    list_filter = ["split"]
    list_select_related = ["item", "snapshot__classifier"]
    search_fields = ["=content_hash"]
    ordering = ["pk"]
    fields = ["snapshot", "item", "content_hash", "label", "split", "weight"]
    empty_text = _("No snapshot holds such rows.")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("snapshot__classifier", "item")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False  # no entry of its own in the menu

    @admin.display(description=_("text"))
    def text(self, row: SnapshotItem) -> SafeString | str:
        return snippet(row.item.fields) if row.item else "–"

    @admin.display(description=_("label"))
    def label_shown(self, row: SnapshotItem) -> SafeString:
        return labels_shown(row.snapshot.classifier.label_parts(row.label))

    @admin.display(description=_("why"))
    def why(self, row: SnapshotItem) -> str:
        return row.item.reason if row.item else str(_("The item is gone."))
