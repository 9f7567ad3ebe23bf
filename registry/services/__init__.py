"""The registry's verbs: what every view, admin action, task and command calls."""

from registry.services.classifiers import classifier_get, live_version, version_get
from registry.services.comparison import Comparison, versions_compare
from registry.services.deployments import STRATEGIES, version_deploy, version_rollback
from registry.services.ensembles import ensemble_members
from registry.services.evaluations import evaluation_record, version_judge
from registry.services.exports import version_export
from registry.services.helpers import (
    Asked,
    cascade_of,
    cascades_queue,
    classifier_problems,
    helper_problems,
)
from registry.services.labels import label_given
from registry.services.versions import (
    artefact_problems,
    probe_problems,
    staging_stale,
    staging_sweep,
    version_register,
    version_verify,
)

__all__ = [
    "STRATEGIES",
    "Asked",
    "Comparison",
    "artefact_problems",
    "cascade_of",
    "cascades_queue",
    "classifier_get",
    "classifier_problems",
    "ensemble_members",
    "evaluation_record",
    "helper_problems",
    "label_given",
    "live_version",
    "probe_problems",
    "staging_stale",
    "staging_sweep",
    "version_deploy",
    "version_export",
    "version_get",
    "version_judge",
    "version_register",
    "version_rollback",
    "version_verify",
    "versions_compare",
]
