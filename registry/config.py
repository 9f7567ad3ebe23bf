"""`models.yaml` → Classifier rows: the file proposes, an administrator's later edit stands until the entry changes."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from kalimtak.core import audit
from kalimtak.core.errors import Conflict, InvalidInput
from registry.models import Classifier
from registry.recipe import Entry, RecipeError, load_yaml, parse_file
from registry.services.helpers import HELPER_KEYS, cascades_queue, classifier_problems


@dataclass(frozen=True)
class SyncReport:
    """Slugs by what became of them. `missing`: made by the file once, no longer in it, and still enabled."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def models_sync(path: Path, *, actor: str, prune: bool = False) -> SyncReport:
    """Make the rows agree with the entries that changed since the last time; all of them or, on an error, none.

    What counts as changed is the entry as it is written, so that a release with new defaults touches no row. With
    `prune`, classifiers that are no longer in the file are disabled, else only reported. The first enabled entry
    becomes the default classifier where no enabled one is. Raises `InvalidInput` naming file, entry and key, and
    `Conflict` where another sync wrote the same rows meanwhile.
    """
    entries = _read(path)
    outcome: dict[str, list[str]] = {"created": [], "updated": [], "unchanged": []}
    try:
        with transaction.atomic():
            for entry, digest in entries:
                outcome[_apply(entry, digest, where=path.name, actor=actor)].append(entry.route)
            changed = [*outcome["created"], *outcome["updated"]]
            _refuse_misfits([entry for entry, _ in entries], changed, where=path.name)
            cascades_queue(Classifier.objects.filter(slug__in=changed), actor=actor)
            gone = _missing([entry.route for entry, _ in entries])
            if prune:
                _disable(gone, actor=actor)
            _choose_default([entry for entry, _ in entries], actor=actor)
    except IntegrityError as error:  # another machine is being set up at the same time
        raise Conflict("Another sync of models.yaml is under way; run this one again.", code="sync_race") from error
    slugs = tuple(classifier.slug for classifier in gone)
    return SyncReport(
        **{name: tuple(found) for name, found in outcome.items()},
        disabled=slugs if prune else (),
        missing=() if prune else slugs,
    )


def _read(path: Path) -> list[tuple[Entry, str]]:
    """Each entry with the digest of what the file says about it."""
    try:
        source = path.read_text(encoding="utf-8")
        entries = parse_file(source, where=path.name)
        document = load_yaml(source, where=path.name)
    except RecipeError as error:
        raise InvalidInput(str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name}: is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); name another file with --config.") from error
    raw_entries: Sequence[Mapping[str, Any]] = document["models"] if isinstance(document, dict) else document
    return [(entry, _digest(raw)) for entry, raw in zip(entries, raw_entries, strict=True)]


def _digest(raw: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(raw, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _apply(entry: Entry, digest: str, *, where: str, actor: str) -> str:
    """Write one entry where it changed; `created`, `updated` or `unchanged`."""
    classifier = Classifier.objects.filter(slug=entry.route).first()
    if classifier is not None and classifier.config_digest == digest:
        return "unchanged"
    outcome = "created" if classifier is None else "updated"
    classifier = classifier or Classifier(slug=entry.route)
    if classifier.pk and classifier.versions.exists():
        _refuse_breaking_change(classifier, entry, where)
    _copy(entry, classifier)
    classifier.config_digest = digest
    try:
        classifier.clean_fields()
    except ValidationError as error:
        field, problems = next(iter(error.message_dict.items()))
        raise InvalidInput(f"{where} ({entry.name}): {field}: {problems[0]}") from error
    classifier.save()
    audit.record(actor, f"classifier.{outcome}", classifier.slug, source=where, enabled=classifier.enabled)
    return outcome


def _copy(entry: Entry, classifier: Classifier) -> None:
    """Every column the file decides. Labels that the data decided stay where the entry lists none."""
    classifier.name = entry.name
    classifier.description = entry.description
    classifier.family = "custom" if entry.loader else entry.type  # a classic entry with a loader is the same
    classifier.loader = entry.loader or ""
    classifier.labels = list(entry.labels.labels) or classifier.labels
    classifier.input_fields = list(entry.recipe.data.input_fields)
    classifier.label_field = entry.recipe.data.label_field
    classifier.label_config = entry.labels.to_dict()
    classifier.recipe = entry.recipe.to_dict()
    classifier.policy = entry.policy.to_dict()
    classifier.enabled = entry.enabled


def _refuse_breaking_change(classifier: Classifier, entry: Entry, where: str) -> None:
    """What trained versions rely on may only grow: their labels keep their places, their inputs their names."""
    before, after = list(classifier.labels), list(entry.labels.labels)
    if after and after[: len(before)] != before:
        raise InvalidInput(
            f"{where} ({entry.name}): label_config.labels: {classifier.slug} has trained versions, so labels can only "
            f"be added after {', '.join(before)}; for other labels make a new entry."
        )
    if entry.labels.multi_label != classifier.multi_label:
        raise InvalidInput(
            f"{where} ({entry.name}): label_config.multi_label: {classifier.slug} has trained versions, so it cannot "
            "be changed; make a new entry."
        )
    if list(entry.recipe.data.input_fields) != list(classifier.input_fields):
        raise InvalidInput(
            f"{where} ({entry.name}): data_config: {classifier.slug} has trained versions that read "
            f"{', '.join(classifier.input_fields)}; for other input fields make a new entry."
        )


def _refuse_misfits(entries: Sequence[Entry], changed: Collection[str], where: str) -> None:
    """Who is named to help must be able to; asked only now that all are rows, and only where something changed.

    What an administrator did to a helper since must not keep an installation from starting.
    """
    for entry in entries:
        named = {getattr(entry.policy, key) for key in HELPER_KEYS}
        classifier = Classifier.objects.filter(slug=entry.route, enabled=True).first()
        if classifier is None or not {entry.route, *named} & set(changed):
            continue
        for key, problem in classifier_problems(classifier):
            raise InvalidInput(f"{where} ({entry.name}): policy.{key}: {problem}.")


def _missing(routes: Sequence[str]) -> list[Classifier]:
    """Enabled classifiers that came from a file and are not in it now; those made by hand have no digest."""
    return list(Classifier.objects.serving().exclude(slug__in=routes).exclude(config_digest=""))


def _disable(classifiers: Sequence[Classifier], *, actor: str) -> None:
    for classifier in classifiers:
        classifier.enabled = False
        classifier.config_digest = ""  # should the entry come back, it counts as changed
        classifier.save(update_fields=["enabled", "config_digest", "updated_at"])
        audit.record(actor, "classifier.disabled", classifier.slug, source="prune")


def _choose_default(entries: Sequence[Entry], *, actor: str) -> None:
    """An administrator's choice stands while it is enabled."""
    if Classifier.objects.serving().filter(is_default=True).exists():
        return
    first = next((entry.route for entry in entries if entry.enabled), None)
    if first is None:
        return
    Classifier.objects.filter(is_default=True).update(is_default=False)
    Classifier.objects.filter(slug=first).update(is_default=True)
    audit.record(actor, "classifier.default", first)
