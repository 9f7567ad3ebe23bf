"""A live version as a Python object: `create_classifier("emotion").classify("…")`, without a server."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from inference.helpers import Absent, can_answer, cascade_thresholds, policy_of, with_helpers
from inference.live import LiveVersion, load_version, serve
from inference.parsing import Item, question_of
from inference.services import answer_write, interactions_keep
from kalimtak.core.auth import Caller
from kalimtak.core.errors import InvalidInput, Unavailable
from registry.families.base import Predictor
from registry.models import Classifier, Deployment
from registry.services import classifier_get
from registry.services.classifiers import live_deployment

logger = logging.getLogger(__name__)

CHUNK = 64
PYTHON = Caller("system", "python")

Text = str | Mapping[str, str]
Value = TypeVar("Value")


class LocalClassifier:
    """The version of a classifier that was live when this object was made; it keeps answering by that one.

    `deployment_id` names another deployment than the live one, for a process that answers beside one that has it.

    Answers are recorded like the API's, with neither key nor address, so that feedback can be given on them: while the
    database is away, in the spool. With `record=False` nothing is written and results carry no `interaction_id`.
    `enable_backup` lets the policy's backup answer what is unsure, sarcastic or fails, and everything where the version
    itself cannot be loaded; cascade and cache of the policy are used in any case. Safe to share between threads.

    Raises `NotFound` for an unknown slug, `Unavailable` (`no_model`) where nothing is live, and whatever `load_version`
    raises where nobody stands in for a version that cannot be loaded.
    """

    def __init__(
        self, slug: str = "", *, enable_backup: bool = False, record: bool = True, deployment_id: int | None = None
    ) -> None:
        classifier = classifier_get(slug)
        if deployment_id is None:
            deployment = live_deployment(classifier)
        else:
            deployment = Deployment.objects.select_related("version__classifier").filter(pk=deployment_id).first()
        if deployment is None:
            remedy = f"run `manage.py train {classifier.slug} --deploy`"
            raise Unavailable(f"The classifier {classifier.slug} has no live version; {remedy}.", code="no_model")
        own, fault = loaded_or_absent(deployment)
        self.served = serve(classifier, (own,))
        self.version = with_helpers(
            own,
            policy_of(classifier),
            floor=self.served.threshold,
            find=find_loaded,
            thresholds=cascade_thresholds(),
            backup=enable_backup,
        )
        if fault is not None and not can_answer(self.version):
            raise fault
        self.enable_backup = enable_backup
        self.record = record
        self._lock = threading.Lock()

    def classify(self, text: Text) -> dict[str, Any]:
        """The contract's result for a text, or for a mapping of the classifier's own fields, and `final_label`.

        A multi-label classifier's result holds all its `labels`; `final_label` is the top one.

        Raises `InvalidInput` or `TooLarge` for what the API would refuse.
        """
        return self.answer([self.item(text)])[0]

    def classify_many(self, texts: Iterable[Text]) -> list[dict[str, Any]]:
        """One result per text, in order. Everything is checked before anything is answered."""
        items = [self.item(text) for text in texts]
        return [result for chunk in chunks(items, CHUNK) for result in self.answer(chunk)]

    def item(self, text: Text) -> Item:
        """A checked input for `answer`. Raises `InvalidInput` or `TooLarge`."""
        body = {"text": text} if isinstance(text, str) else text
        if not isinstance(body, Mapping) or "texts" in body or "items" in body:
            raise InvalidInput("Give a text, or a mapping with the classifier's own fields.")
        return question_of(dict(body), self.served.input_fields, classifier=self.served.slug).items[0]

    def answer(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """One result per item, recorded together. Raises `Unavailable` where neither table nor spool takes them."""
        if not items:
            return []
        with self._lock:
            started = time.perf_counter()
            answers = self.version.predictor.predict([item.fields for item in items])
            latency_ms = (time.perf_counter() - started) * 1000 / len(items)
        written = [
            answer_write(self.served, self.version, item, answer, caller=PYTHON, latency_ms=latency_ms)
            for item, answer in zip(items, answers, strict=True)
        ]
        results = [result | {"final_label": result["label"]} for _, result in written]
        if self.record:
            interactions_keep([row for row, _ in written])
        else:
            for result in results:
                del result["interaction_id"]
        return results


def loaded(deployment: Deployment) -> LiveVersion:
    """A deployment's version for this object alone. Raises what `load_version` raises."""
    return _version_of(deployment, load_version(deployment.version))


def loaded_or_absent(deployment: Deployment) -> tuple[LiveVersion, Exception | None]:
    """The same, or in place of a version that cannot be loaded one that only a backup answers for, and the reason."""
    try:
        return loaded(deployment), None
    except Exception as error:  # whatever a library makes of these files
        logger.error("Version %s cannot be loaded: %r", deployment.version.ref, error)
        return _version_of(deployment, Absent(deployment.version, str(error))), error


def _version_of(deployment: Deployment, predictor: Predictor) -> LiveVersion:
    return LiveVersion(
        deployment_id=deployment.pk,
        role=deployment.role,
        share=deployment.share,
        version_id=deployment.version_id,
        ref=deployment.version.ref,
        predictor=predictor,
    )


def find_loaded(slug: str) -> LiveVersion | None:
    """The live version of a helper; where it cannot be loaded the others answer without it."""
    helper = Classifier.objects.serving().filter(slug=slug).first()
    deployment = live_deployment(helper) if helper else None
    if deployment is None:
        return None
    try:
        return loaded(deployment)
    except Exception as error:  # whatever a library makes of these files
        logger.error("Version %s cannot be loaded and helps nobody: %r", deployment.version.ref, error)
        return None


def chunks(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """`values` in lists of `size`, the last one shorter; reads no further ahead than one list."""
    stream = iter(values)
    while chunk := list(islice(stream, size)):
        yield chunk
