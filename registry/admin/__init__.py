"""Admin pages of classifiers, versions, evaluations and deployments."""

from registry.admin import classifiers, evidence, versions  # noqa: F401  (register their pages)
from registry.admin.classifiers import ClassifierAdmin
from registry.admin.versions import ModelVersionAdmin

__all__ = ["ClassifierAdmin", "ModelVersionAdmin"]
