"""The floor of the admin: bases for every app's pages, and the pages of jobs, alerts, API keys and the audit chain.

Apps import `BaseModelAdmin`, `ReadOnlyModelAdmin`, `ConfirmedAction` and `Panel` from here and nothing from unfold, so
that another theme, or Django's own, is a matter of this package.
"""

from kalimtak.core.admin.base import BaseModelAdmin, BaseTabularInline, ReadOnlyModelAdmin
from kalimtak.core.admin.confirm import ConfirmedAction, Outcome, ReasonForm
from kalimtak.core.admin.display import actor_of, labels_shown, relative, state_label, when
from kalimtak.core.admin.panels import Panel

__all__ = [
    "BaseModelAdmin",
    "BaseTabularInline",
    "ConfirmedAction",
    "Outcome",
    "Panel",
    "ReadOnlyModelAdmin",
    "ReasonForm",
    "actor_of",
    "labels_shown",
    "relative",
    "state_label",
    "when",
]

from kalimtak.core.admin import alerts, api_keys, audit, jobs  # noqa: F401  (register their pages on the bases above)
