"""Who helps a live version, as its classifier's policy names them, out of versions that are loaded."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from inference.healing import SARCASTIC, Cascade, Healing, Helper, Helpers
from registry.calibration import Calibration
from registry.families.base import Answer, FamilyError, Fields, Predictor
from registry.models import Cascade as CascadeRow
from registry.models import Classifier, ModelVersion
from registry.recipe import Policy, RecipeError

if TYPE_CHECKING:
    from inference.live import LiveVersion

logger = logging.getLogger(__name__)

Find = Callable[[str], "LiveVersion | None"]
Thresholds = Mapping[tuple[int, int], float]


def cascade_thresholds() -> Thresholds:
    """(main version, cheap version) → the measured threshold, of the pairs that have one."""
    rows = CascadeRow.objects.exclude(threshold=None).values_list("version_id", "cheap_id", "threshold")
    return {(version, cheap): threshold for version, cheap, threshold in rows if threshold is not None}


def policy_of(classifier: Classifier) -> Policy:
    """Its policy, or where that cannot be read one in which nobody helps."""
    try:
        return classifier.get_policy()
    except RecipeError as error:
        logger.error("The policy of %s cannot be read, so nobody helps it: %s", classifier.slug, error)
        return Policy()


def with_helpers(
    version: "LiveVersion", policy: Policy, *, floor: float, find: Find, thresholds: Thresholds, backup: bool = True
) -> "LiveVersion":
    """`version` with the helpers that `policy` names, as far as `find(slug)` finds them live and fitting.

    Without `backup` neither that nor the sarcasm classifier is asked.
    """
    main = own_model(version.predictor)
    found: dict[str, LiveVersion] = {}
    for name in ("backup", "sarcasm", "cascade") if backup else ("cascade",):
        slug = getattr(policy, name)
        helper = find(slug) if slug else None
        if helper is None:
            continue
        if misfit := _misfit(name, main, own_model(helper.predictor)):
            logger.warning("%s cannot be the %s of %s: %s", helper.ref, name, version.ref, misfit)
            continue
        found[name] = replace(helper, predictor=own_model(helper.predictor), others={})
    if "backup" not in found:
        found.pop("sarcasm", None)  # nobody could answer in the main model's place
    helpers = Helpers(
        backup=_helper(found.get("backup")),
        sarcasm=_helper(found.get("sarcasm")),
        cascade=_cascade(version, found.get("cascade"), thresholds),
        cache=policy.cached_texts,
    )
    return replace(
        version,
        predictor=_healing(version.predictor, main, helpers, floor),
        others={helper.ref: helper for helper in found.values()},
    )


class Absent:
    """The model of a version that cannot be loaded: only a backup can answer for it."""

    def __init__(self, version: ModelVersion, reason: str) -> None:
        self.labels = tuple(version.labels)
        self.input_fields = tuple(version.classifier.input_fields)
        self.calibration = Calibration.from_dict(version.calibration)
        self.reason = reason

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """`registry.families.base.Predictor`; always raises."""
        raise FamilyError(f"it cannot be loaded: {self.reason}")


def can_answer(version: "LiveVersion") -> bool:
    """Not where its model is absent and nobody stands in for it."""
    return not isinstance(version.predictor, Absent) and not (
        isinstance(version.predictor, Healing)
        and isinstance(version.predictor.main, Absent)
        and version.predictor.helpers.backup is None
    )


def own_model(predictor: Predictor) -> Predictor:
    """The version's own model, without its helpers."""
    return predictor.main if isinstance(predictor, Healing) else predictor


def _healing(before: Predictor, main: Predictor, helpers: Helpers, floor: float) -> Predictor:
    """What answered before where nothing changed, so that its memory stays."""
    if not helpers:
        return main
    if isinstance(before, Healing) and before.helpers == helpers and before.floor == floor:
        return before
    return Healing(main, helpers, floor=floor)


def _misfit(name: str, main: Predictor, helper: Predictor) -> str:
    """Why a helper cannot help; configuration is checked when it is written, but versions come and go."""
    if helper.input_fields != main.input_fields:
        return "it reads other fields"
    if name == "sarcasm":
        tells = SARCASTIC in helper.labels and not helper.calibration.multi_label
        return "" if tells else f"it has no label {SARCASTIC}"
    if helper.calibration.multi_label != main.calibration.multi_label:
        return "one of them gives several labels, the other does not"
    if strange := sorted(set(helper.labels) - set(main.labels)):
        return f"it has other labels ({', '.join(strange[:5])})"
    return ""


def _helper(version: "LiveVersion | None") -> Helper | None:
    return Helper(version.ref, version.predictor) if version else None


def _cascade(version: "LiveVersion", cheap: "LiveVersion | None", thresholds: Thresholds) -> Cascade | None:
    """Only a pair that was measured is used."""
    if cheap is None:
        return None
    threshold = thresholds.get((version.version_id, cheap.version_id))
    return None if threshold is None else Cascade(cheap.ref, cheap.predictor, threshold)
