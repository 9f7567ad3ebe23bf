"""Which versions an ensemble may be made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kalimtak.core.errors import InvalidInput
from registry import services

MakeVersion = Callable[..., Any]


@pytest.fixture
def both(emotion: Any) -> Any:
    """An ensemble of `emotion` and `mood`."""
    from registry.models import Classifier

    return Classifier.objects.create(
        slug="both", name="both", family="ensemble", labels=["sadness", "joy"], input_fields=["text"]
    )


@pytest.fixture
def mood(emotion: Any, make_staging: Callable[..., Path]) -> Any:
    """A second classifier with one verified version."""
    from registry.models import Classifier

    mood = Classifier.objects.create(
        slug="mood", name="mood", family="classic", labels=["joy", "sadness"], input_fields=["text"]
    )
    version = services.version_register(mood, make_staging("mood"), parent=None, actor="system")
    version.status = "verified"
    version.save()
    return mood


def test_the_live_version_is_taken_else_the_newest_verified_one(
    both: Any, mood: Any, make_version: MakeVersion
) -> None:
    first, second, _ = make_version(90), make_version(90), make_version(status="registered")
    members = services.ensemble_members(both, ["emotion", "mood"])
    assert [version.ref for version in members.values()] == ["emotion/2", "mood/1"]
    services.version_deploy(first, actor="olga")
    assert services.ensemble_members(both, ["mood", "emotion"])["emotion"] == first
    assert list(services.ensemble_members(both, ["mood", "emotion"])) == ["mood", "emotion"]
    assert second.status == "verified"


@pytest.mark.parametrize(
    ("slugs", "changes", "message"),
    [
        (["emotion", "mod"], {}, "There is no classifier 'mod'"),
        (["emotion", "both"], {}, "both names itself"),
        ([], {}, "names no members; set model_config.members"),
        (["emotion", "mood"], {"labels": ["joy", "sadness", "fear"]}, "answers joy, sadness, both fear, joy, sadness"),
        (["emotion", "mood"], {"input_fields": ["question", "context"]}, "emotion reads text, both question, context"),
        (["emotion", "mood"], {"label_config": {"multi_label": True}}, "emotion gives a text one label, both several"),
    ],
)
def test_what_cannot_be_a_member_is_refused_in_one_line(
    both: Any, mood: Any, make_version: MakeVersion, slugs: list[str], changes: dict[str, Any], message: str
) -> None:
    make_version()
    for name, value in changes.items():
        setattr(both, name, value)
    with pytest.raises(InvalidInput) as refused:
        services.ensemble_members(both, slugs)
    assert message in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("family", ["ensemble", "custom"])
def test_ensembles_and_code_of_the_installation_are_no_members(
    both: Any, mood: Any, make_version: MakeVersion, family: str
) -> None:
    version = make_version()
    version.family = family
    version.save()
    with pytest.raises(InvalidInput, match=f"emotion/1 is of type {family}, which cannot be a member"):
        services.ensemble_members(both, ["emotion", "mood"])


def test_a_classifier_that_was_never_trained_is_no_member(both: Any, mood: Any) -> None:
    with pytest.raises(InvalidInput, match="emotion has no version that could be a member; train it first"):
        services.ensemble_members(both, ["emotion", "mood"])
