"""How the admin words who acts, and colours the states that a person looks for first."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

TONES = {
    "good": {"succeeded", "verified", "passed", "approved", "ready", "production", "ok", "approve"},
    "bad": {"failed", "corrupt", "refused", "rejected", "quarantined", "reject", "revoked"},
    "busy": {"running", "loading", "review", "canary", "shadow", "split", "insufficient", "candidate", "relabel"},
}
TONE_OF = {state: tone for tone, states in TONES.items() for state in states}


def actor_of(request: HttpRequest) -> str:
    """The name that services write into audit entries."""
    return request.user.get_username()


def state_label(state: str, text: object = "") -> SafeString:
    """A state as a coloured word; the colour repeats what the word says."""
    return format_html('<span class="k-state k-{}">{}</span>', TONE_OF.get(state, "calm"), text or state or "–")


def labels_shown(labels: Sequence[str]) -> SafeString:
    """Labels apart from each other, each in its own direction; a word where a text has none of them."""
    if not labels:
        return format_html('<em class="k-muted">{}</em>', _("none of the labels"))
    if len(labels) == 1:
        return format_html("<bdi>{}</bdi>", labels[0])
    return format_html_join(" ", '<bdi class="k-tag">{}</bdi>', ((label,) for label in labels))


def when(moment: datetime | None) -> SafeString | str:
    """A time as people say it, with the exact one as a tooltip."""
    if moment is None:
        return "–"
    local = timezone.localtime(moment)
    exact = date_format(local, "DATETIME_FORMAT")
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, relative(moment))


def relative(moment: datetime) -> str:
    """“3 minutes ago” up to a day; the date after that."""
    passed = timezone.now() - moment
    if not timedelta(0) <= passed < timedelta(days=1):
        return date_format(timezone.localtime(moment), "SHORT_DATETIME_FORMAT")
    minutes = int(passed.total_seconds() // 60)
    if minutes < 1:
        return _("just now")
    if minutes < 60:
        return ngettext("%(n)d minute ago", "%(n)d minutes ago", minutes) % {"n": minutes}
    return ngettext("%(n)d hour ago", "%(n)d hours ago", minutes // 60) % {"n": minutes // 60}


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return _("%(seconds)d s") % {"seconds": whole}
    if whole < 3600:
        return _("%(minutes)d min %(seconds)02d s") % {"minutes": whole // 60, "seconds": whole % 60}
    return _("%(hours)d h %(minutes)02d min") % {"hours": whole // 3600, "minutes": whole % 3600 // 60}
