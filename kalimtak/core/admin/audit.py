"""The audit chain, to be read."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from kalimtak.core.admin.base import ReadOnlyModelAdmin
from kalimtak.core.models import AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyModelAdmin):
    list_display = ["at", "actor", "action", "target"]
    list_filter = ["action"]
    search_fields = ["=actor", "=target"]
    list_intro = _(
        "Each entry carries the hash of the one before: `manage.py audit_verify` finds any that was altered."
    )
    fields = ["at", "actor", "action", "target", "data", "previous_hash", "hash"]
    empty_text = _("Nothing has been recorded yet.")
