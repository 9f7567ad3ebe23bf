"""The job ledger: what is waiting, at work and done, with live progress and a way to stop it."""

import json
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from kalimtak.core import jobs
from kalimtak.core.admin.base import ReadOnlyModelAdmin
from kalimtak.core.admin.confirm import ConfirmedAction, Outcome
from kalimtak.core.admin.display import actor_of, duration, state_label, when
from kalimtak.core.admin.panels import Panel
from kalimtak.core.models import Job

SILENT = timedelta(seconds=1.5 * jobs.HEARTBEAT_SECONDS)


class ProgressPanel(Panel):
    """How far a job is, what it says, and about how long it still needs."""

    name = "progress"
    title = _("Progress")
    template = "admin/kalimtak/progress.html"

    def job(self, obj: Any) -> Job:
        return obj

    def is_live(self, obj: Any) -> bool:
        return not self.job(obj).is_finished

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        job = self.job(obj)
        return {
            "job": job,
            "state": state_label(job.state, job.get_state_display()),
            "percent": f"{100 * job.progress:.0f}",
            "words": progress_words(job),
        }


class ResultPanel(Panel):
    """What a finished job reported, a line per entry; none for an empty table."""

    name = "result"
    title = _("Result")
    template = "admin/kalimtak/result.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return bool(obj.result)

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        shown = ((name, value) for name, value in obj.result.items() if not is_nested(value) and value != {})
        return {"rows": [(name.replace("_", " "), value) for name, value in shown]}


def is_nested(value: Any) -> bool:
    """Whether it is a table of tables, which a panel of its own has to draw."""
    return isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values())


def progress_words(job: Job) -> list[str]:
    """What stands under the bar: the job's own note, and what its times tell."""
    silence = silence_of(job)
    tells_the_rest = job.note.endswith(" left")  # the job may know better
    note = job.note.rpartition(", ")[0] if silence and tells_the_rest else job.note
    words = [note] if note else []
    if silence:
        words.append(_("no sign of life for %(time)s") % {"time": duration(silence.total_seconds())})
    elif not tells_the_rest and (left := remaining(job)):
        words.append(_("about %(time)s left") % {"time": left})
    if job.finished_at and job.started_at:
        words.append(_("took %(time)s") % {"time": duration((job.finished_at - job.started_at).total_seconds())})
    if job.state == Job.State.QUEUED:
        words.append(str(_("waits for a worker")))
    if job.cancel_requested and not job.is_finished:
        words.append(str(_("asked to stop")))
    return words


def silence_of(job: Job) -> timedelta | None:
    """For how long nothing was heard of the process of a running job; None where that is nothing unusual."""
    heard = jobs.last_sign_of(job)
    silence = timezone.now() - heard if heard else timedelta(0)
    return silence if silence > SILENT else None


def remaining(job: Job) -> str:
    """The time left if the rest goes as fast as what this attempt did; empty before that is a twentieth.

    Measured at the last sign of life, so that it falls while none comes.
    """
    done, heard = job.progress - job.progress_before, jobs.last_sign_of(job)
    if heard is None or job.started_at is None or done < 0.05:
        return ""
    spent = (heard - job.started_at).total_seconds()
    return duration(spent * (1 - job.progress) / done - (timezone.now() - heard).total_seconds())


def as_word(value: Any) -> str:
    """A parameter as a person reads it."""
    if isinstance(value, bool):
        return str(_("yes") if value else _("no"))
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "–" if value in ("", None) else str(value)


class CancelJob(ConfirmedAction):
    name = "cancel"
    label = _("Cancel")
    question = _("It stops at the next safe point. What it has not finished is left undone.")
    permission = "core.change_job"
    icon = "stop_circle"
    dangerous = True

    def job(self, obj: Any) -> Job:
        return obj

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        job = self.job(obj)
        return not job.is_finished and not job.cancel_requested

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        job = self.job(obj)
        return [(_("Job"), job), (_("State"), job.get_state_display()), (_("Progress"), f"{job.progress:.0%}")]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        job = jobs.cancel(self.job(obj), actor=actor_of(request))
        if job.is_finished:
            return Outcome(str(_("The job was cancelled.")))
        return Outcome(str(_("The job was asked to stop.")))


@admin.register(Job)
class JobAdmin(ReadOnlyModelAdmin):
    list_display = ["kind", "state_shown", "progress_shown", "note", "actor", "created", "attempt"]
    list_filter = ["state", "kind"]
    search_fields = ["id", "key"]
    panels = [ProgressPanel(), ResultPanel()]
    confirmed_actions = [CancelJob()]
    empty_text = _("Nothing has been asked for yet. Imports, curation and training appear here.")
    fieldsets = [
        (None, {"fields": ["kind", "actor", "asked_for"]}),
        (
            _("Ledger"),
            {
                "classes": ["collapse"],
                "fields": ["key", "cluster", "attempt", "max_attempts", "token", "owner", "slot", "lease_until"],
            },
        ),
        (_("Times"), {"fields": ["created_at", "not_before", "started_at", "finished_at"]}),
    ]

    @admin.display(description=_("state"), ordering="state")
    def state_shown(self, job: Job) -> SafeString:
        return state_label(job.state, job.get_state_display())

    @admin.display(description=_("progress"))
    def progress_shown(self, job: Job) -> str:
        return f"{job.progress:.0%}"

    @admin.display(description=_("parameters"))
    def asked_for(self, job: Job) -> SafeString | str:
        asked = {name: value for name, value in job.params.items() if name != jobs.RESUME}
        rows = [(name.replace("_", " "), as_word(value)) for name, value in asked.items()]
        lines = format_html_join("", "<dt>{}</dt><dd><bdi>{}</bdi></dd>", rows)
        return format_html('<dl class="k-facts">{}</dl>', lines) if rows else "–"

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, job: Job) -> Any:
        return when(job.created_at)
