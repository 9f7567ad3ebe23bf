"""What an examination found, as the data set's page draws it: every figure leads to the items behind it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from interactions.admin import beginning
from kalimtak.core.admin import labels_shown, when
from kalimtak.core.admin.charts import bar_chart
from training.admin.report import bars
from training.models import Dataset, TrainingDataItem

LABELS_DRAWN = 30


class Figure(NamedTuple):
    """A count with its name, and the list of the items behind it ("": none)."""

    name: str
    count: str
    url: str
    note: str = ""


def findings_context(dataset: Dataset, *, with_texts: bool) -> dict[str, Any]:
    """Template context of `training.examination.examine()`; nothing before there is one.

    `with_texts`: whether who looks may read the items.
    """
    found = dataset.findings
    if not found:
        return {}
    leaks, twins = [*found["golden"]["pairs"], *found["others"]["pairs"]], found["twins"]["pairs"]
    doubts = (found["doubtful"] or {"shown": []})["shown"]
    keys = [pair[side] for pair in (*leaks, *twins) for side in ("item", "twin")] + [each["item"] for each in doubts]
    known = _known(dataset, keys) if with_texts else {}
    moment = parse_datetime(found["at"])
    labels = bars(dict(list(found["labels"].items())[:LABELS_DRAWN]))
    return {
        "found": found,
        "when": when(moment),
        "figures": _figures(found),
        "labels": [row | {"url": items_url(dataset=dataset, label=row["label"])} for row in labels],
        "lengths": bar_chart([(_span(bar), bar["count"], ids_url(bar["ids"])) for bar in found["lengths"]]),
        "scripts": _mix(found["scripts"]),
        "languages": _mix(found["languages"]),
        "with_texts": with_texts,
        "leaks": [_pair(pair, known) for pair in leaks],
        "twins": [_pair(pair, known) for pair in twins],
        "doubts": [{**doubt, "item": _shown(doubt["item"], known), "sure": f"{doubt['sure']:.0%}"} for doubt in doubts],
    }


def _known(dataset: Dataset, keys: Sequence[int]) -> dict[int, TrainingDataItem]:
    """Those of the items that are still there, by key, with what a line about one shows: one query, or none."""
    found = TrainingDataItem.objects.only("fields", "label").in_bulk(set(keys))
    for item in found.values():
        item.classifier = dataset.classifier  # all are of the same one
    return found


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    """The counts that a person looks for first."""
    golden, others, twins, doubtful = found["golden"], found["others"], found["twins"], found["doubtful"]
    leaked = [*golden["same"]["ids"], *golden["near"]["ids"]]
    elsewhere = [*others["same"]["ids"], *others["near"]["ids"]]
    sources = ", ".join(f"{name} {count:,}" for name, count in list(others["sources"].items())[:5] if name)
    figures = [
        _figure(_("also in the golden set, or nearly"), golden["same"]["count"] + golden["near"]["count"], leaked),
        _figure(_("nearly the same text, another label"), twins["other_label"]["count"], twins["other_label"]["ids"]),
        _figure(_("nearly the same text, the same label"), twins["same_label"]["count"], twins["same_label"]["ids"]),
        _figure(
            _("also in other data sets, or nearly"),
            others["same"]["count"] + others["near"]["count"],
            elsewhere,
            sources,
        ),
        _figure(_("with personal data"), found["personal"]["count"], found["personal"]["ids"]),
    ]
    if doubtful:
        figures.insert(0, _figure(_("label in doubt"), doubtful["count"], doubtful["ids"]))
    return figures


def _figure(name: str, count: int, ids: Sequence[int], note: str = "") -> Figure:
    return Figure(name, f"{count:,}", ids_url(ids), note)


def _mix(named: Mapping[str, Any]) -> list[Figure]:
    return [_figure(name.capitalize(), each["count"], each["ids"]) for name, each in list(named.items())[:10]]


def _span(bar: Mapping[str, Any]) -> str:
    return f"≤ {bar['to']:,}" if bar["to"] else f"> {bar['over']:,}"


def _pair(pair: Mapping[str, Any], known: Mapping[int, TrainingDataItem]) -> dict[str, Any]:
    sides = [_shown(pair[side], known) for side in ("item", "twin")]
    return {"sides": sides, "resemblance": f"{pair['resemblance']:.0%}"}


def _shown(key: int, known: Mapping[int, TrainingDataItem]) -> dict[str, Any]:
    """An item as a line names it; `text` is None where it is gone or not to be read."""
    item = known.get(key)
    return {
        "key": key,
        "url": item_url(key),
        "text": beginning(item.fields) if item else None,
        "labels": labels_shown(item.label_parts) if item and item.label else "",
    }


def items_url(*, dataset: Dataset, label: str) -> str:
    query = urlencode({"dataset__id__exact": dataset.pk, "label": label})
    return f"{reverse('admin:training_trainingdataitem_changelist')}?{query}"


def ids_url(ids: Sequence[int]) -> str:
    """The list of these items; "" for none."""
    if not ids:
        return ""
    query = urlencode({"id__in": ",".join(map(str, ids))}, safe=",")
    return f"{reverse('admin:training_trainingdataitem_changelist')}?{query}"


def item_url(item_id: int) -> str:
    return reverse("admin:training_trainingdataitem_change", args=[item_id])
