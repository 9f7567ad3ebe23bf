"""Who answers now: deployments are checked, exclusive, and can be taken back."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from kalimtak.core import audit
from kalimtak.core.errors import Conflict, InvalidInput, KalimtakError, NotAllowed, NotFound
from kalimtak.core.models import AuditEvent, Job
from registry import store
from registry.models import Classifier, Deployment, ModelVersion
from registry.services import deployments, live_version, version_deploy, version_rollback

pytestmark = pytest.mark.django_db
MakeVersion = Callable[..., ModelVersion]


def deploy(version: ModelVersion, **options: Any) -> Deployment:
    return version_deploy(version, actor="dina", **options)


def roll_back(classifier: Classifier, **options: Any) -> Deployment:
    return version_rollback(classifier, actor="dina", **{"reason": "answers look odd"} | options)


def code_of(refused: pytest.ExceptionInfo[KalimtakError]) -> str:
    return refused.value.code


def damage(version: ModelVersion) -> None:
    path = store.version_folder(version.classifier.slug, version.number) / "serving" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


# Forward ---------------------------------------------------------------------------------------------------------


def test_the_first_version_answers_at_once(make_version: MakeVersion, emotion: Classifier) -> None:
    version = make_version(60)
    deployment = deploy(version, reason="  the first ")
    assert (deployment.role, deployment.share, deployment.forced) == ("production", 100, False)
    assert (deployment.actor, deployment.reason, deployment.ended_at) == ("dina", "the first", None)
    assert live_version(emotion) == version
    event = AuditEvent.objects.get(action="version.deploy")
    assert (event.actor, event.target, event.data["replaced"]) == ("dina", "emotion/1", None)
    assert audit.verify() == []


def test_a_better_version_takes_over_and_history_stays(make_version: MakeVersion, emotion: Classifier) -> None:
    first = deploy(make_version(80))
    second = deploy(make_version(90))
    first.refresh_from_db()
    assert first.ended_at == second.started_at
    assert not first.rolled_back
    assert live_version(emotion) == second.version
    now = timezone.now()
    answering = Deployment.objects.production().filter(started_at__lte=now).exclude(ended_at__lte=now)
    assert [row.version for row in answering] == [second.version]


def test_the_gate_refuses_with_its_reasons(make_version: MakeVersion, emotion: Classifier) -> None:
    live = deploy(make_version(90)).version
    with pytest.raises(Conflict, match=r"emotion/2.*fell from 90\.0 % to 70\.0 %") as refused:
        deploy(make_version(70))
    assert code_of(refused) == "gate_refused"
    assert refused.value.fields["gate"][0].startswith("Macro-F1 fell")
    assert live_version(emotion) == live


def test_figures_that_cannot_tell_do_not_open_the_gate(make_version: MakeVersion) -> None:
    deploy(make_version(90))
    with pytest.raises(Conflict) as refused:
        deploy(make_version(None))
    assert code_of(refused) == "gate_refused"


def test_the_gate_is_overruled_only_with_permission_and_reason(make_version: MakeVersion) -> None:
    deploy(make_version(90))
    worse = make_version(70)
    with pytest.raises(NotAllowed):
        deploy(worse, force=True, reason="I know better")
    for reason in ("", "   "):
        with pytest.raises(InvalidInput, match="Say why"):
            deploy(worse, force=True, may_force=True, reason=reason)
    deployment = deploy(worse, force=True, may_force=True, reason="the golden set is wrong")
    assert deployment.forced
    assert AuditEvent.objects.filter(action="version.deploy").first().data["forced"] is True


def test_force_where_the_gate_agrees_overrules_nothing(make_version: MakeVersion) -> None:
    assert not deploy(make_version(90), force=True, may_force=True, reason="hurry").forced


def test_what_is_live_is_not_deployed_again(make_version: MakeVersion) -> None:
    version = deploy(make_version(90)).version
    with pytest.raises(Conflict) as refused:
        deploy(version)
    assert code_of(refused) == "already_live"
    assert Deployment.objects.count() == 1


@pytest.mark.parametrize(
    ("status", "code"), [("registered", "not_verified"), ("archived", "not_verified"), ("corrupt", "corrupt_artefact")]
)
def test_only_verified_versions_answer_even_by_force(make_version: MakeVersion, status: str, code: str) -> None:
    with pytest.raises(Conflict) as refused:
        deploy(make_version(90, status=status), force=True, may_force=True, reason="please")
    assert code_of(refused) == code


def test_a_stale_row_in_hand_does_not_hide_that_a_version_is_corrupt(make_version: MakeVersion) -> None:
    version = make_version(90)
    ModelVersion.objects.update(status="corrupt", problems=["a bit flipped"])
    with pytest.raises(Conflict, match="a bit flipped"):
        deploy(version)


def test_one_flipped_bit_keeps_a_version_out_and_the_old_one_serving(
    make_version: MakeVersion, emotion: Classifier
) -> None:
    live = deploy(make_version(80)).version
    damaged = make_version(95)
    damage(damaged)
    with pytest.raises(Conflict, match=r"model\.safetensors was altered") as refused:
        deploy(damaged, force=True, may_force=True, reason="please")
    assert code_of(refused) == "corrupt_artefact"
    damaged.refresh_from_db()
    assert damaged.status == "corrupt"
    assert live_version(emotion) == live
    assert AuditEvent.objects.filter(action="version.corrupt", target=damaged.ref).exists()


@pytest.mark.parametrize("strategy", ["canary", "shadow", "split"])
def test_a_strategy_of_later_is_refused_and_not_faked(make_version: MakeVersion, strategy: str) -> None:
    with pytest.raises(Conflict, match="not available yet") as refused:
        deploy(make_version(90), strategy=strategy, share=5)
    assert code_of(refused) == "not_available"
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("options", "field"), [({"strategy": "x"}, "strategy"), ({"share": 50}, "share"), ({"reason": "x" * 301}, "reason")]
)
def test_a_request_that_cannot_be_meant_names_its_field(
    make_version: MakeVersion, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        deploy(make_version(90), **options)
    assert list(refused.value.fields) == [field]


# Races -----------------------------------------------------------------------------------------------------------


def at_once(*acts: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run `acts` in threads of their own, all of which have seen what is live before any of them changes it."""
    barrier = threading.Barrier(len(acts), timeout=30)
    replace, outcomes = deployments._replace, []

    def replace_together(*args: Any, **kwargs: Any) -> Deployment:
        barrier.wait()
        return replace(*args, **kwargs)

    def run(act: Callable[[], Any]) -> None:
        try:
            act()
            outcomes.append("done")
        except KalimtakError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    monkeypatch.setattr(deployments, "_replace", replace_together)
    threads = [threading.Thread(target=run, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return sorted(outcomes)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("something_is_live", [False, True])
def test_of_two_deployers_one_wins_and_the_other_is_told(
    make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch, something_is_live: bool
) -> None:
    if something_is_live:
        deploy(make_version(80))
    a, b = make_version(90), make_version(91)
    outcomes = at_once(lambda: deploy(a), lambda: deploy(b), monkeypatch=monkeypatch)
    assert outcomes == ["deployment_race", "done"]
    assert Deployment.objects.live().count() == 1
    assert Deployment.objects.count() == 1 + something_is_live
    assert AuditEvent.objects.filter(action="version.deploy").count() == Deployment.objects.count()
    assert audit.verify() == []


@pytest.mark.django_db(transaction=True)
def test_a_rollback_and_a_deployment_do_not_both_happen(
    make_version: MakeVersion, emotion: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for correct in (80, 85):
        deploy(make_version(correct))
    newest = make_version(90)
    outcomes = at_once(lambda: deploy(newest), lambda: roll_back(emotion), monkeypatch=monkeypatch)
    assert outcomes == ["deployment_race", "done"]
    assert Deployment.objects.live().count() == 1


# Back ------------------------------------------------------------------------------------------------------------


def test_the_version_before_answers_again(make_version: MakeVersion, emotion: Classifier) -> None:
    first, second = deploy(make_version(80)), deploy(make_version(90))
    deployment = roll_back(emotion)
    assert deployment.version == first.version == live_version(emotion)
    assert deployment.pk not in (first.pk, second.pk)
    second.refresh_from_db()
    assert second.rolled_back and second.ended_at is not None
    event = AuditEvent.objects.get(action="version.rollback")
    assert (event.target, event.data["replaced"], event.data["reason"]) == (
        "emotion/1",
        "emotion/2",
        "answers look odd",
    )


def test_rolling_back_again_goes_further_and_never_forward(make_version: MakeVersion, emotion: Classifier) -> None:
    for correct in (80, 85, 90):
        deploy(make_version(correct))
    assert roll_back(emotion).version.number == 2
    assert roll_back(emotion).version.number == 1
    with pytest.raises(Conflict) as refused:
        roll_back(emotion)
    assert code_of(refused) == "nothing_to_roll_back"
    assert live_version(emotion).number == 1


def test_a_version_deployed_again_after_its_rollback_can_be_gone_back_to(
    make_version: MakeVersion, emotion: Classifier
) -> None:
    deploy(make_version(80))
    second = make_version(85)
    deploy(second)
    roll_back(emotion)
    deploy(second)
    deploy(make_version(90))
    assert roll_back(emotion).version == second


def test_a_version_that_was_rolled_back_from_is_skipped(make_version: MakeVersion, emotion: Classifier) -> None:
    deploy(make_version(80))
    deploy(make_version(85))
    roll_back(emotion)
    deploy(make_version(90))
    assert roll_back(emotion).version.number == 1


def test_with_nothing_before_it_nothing_is_rolled_back(make_version: MakeVersion, emotion: Classifier) -> None:
    with pytest.raises(Conflict) as refused:
        roll_back(emotion)
    assert code_of(refused) == "nothing_to_roll_back"
    deploy(make_version(90))
    with pytest.raises(Conflict) as refused:
        roll_back(emotion)
    assert code_of(refused) == "nothing_to_roll_back"
    assert Deployment.objects.live().count() == 1


def test_a_damaged_version_is_passed_over_on_the_way_back(make_version: MakeVersion, emotion: Classifier) -> None:
    deploy(make_version(80))
    damaged = deploy(make_version(85)).version
    deploy(make_version(90))
    damage(damaged)
    assert roll_back(emotion).version.number == 1
    damaged.refresh_from_db()
    assert damaged.status == "corrupt"


def test_a_named_version_answers_again(make_version: MakeVersion, emotion: Classifier) -> None:
    for correct in (80, 85, 90):
        deploy(make_version(correct))
    assert roll_back(emotion, to=1).version.number == 1
    assert roll_back(emotion, to=3).version.number == 3  # it was in production before


def test_an_older_version_that_was_never_deployed_may_be_named(make_version: MakeVersion, emotion: Classifier) -> None:
    make_version(85)
    deploy(make_version(90))
    assert roll_back(emotion, to=1).version.number == 1


def test_a_version_that_cannot_be_gone_back_to_is_refused(make_version: MakeVersion, emotion: Classifier) -> None:
    damaged = make_version(80)
    make_version(80, status="registered")
    deploy(make_version(90))
    make_version(10)
    damage(damaged)
    codes = {1: "corrupt_artefact", 2: "not_verified", 3: "already_live", 4: "not_a_rollback"}
    for number, code in codes.items():
        with pytest.raises(Conflict) as refused:
            roll_back(emotion, to=number)
        assert code_of(refused) == code
    with pytest.raises(NotFound):
        roll_back(emotion, to=99)
    assert live_version(emotion).number == 3


def test_a_canary_is_ended_before_production_is_touched(make_version: MakeVersion, emotion: Classifier) -> None:
    production = deploy(make_version(80))
    candidate = make_version(90)
    canary = Deployment.objects.create(classifier=emotion, version=candidate, role="canary", share=5)
    assert roll_back(emotion) == production
    canary.refresh_from_db()
    assert canary.rolled_back and canary.ended_at is not None


def test_rolling_back_needs_neither_queue_nor_cache(
    make_version: MakeVersion, emotion: Classifier, settings: Any
) -> None:
    for correct in (80, 85):
        deploy(make_version(correct))
    settings.CACHES = {"default": {"BACKEND": "nothing.is.here"}}
    settings.Q_CLUSTER = {}
    assert roll_back(emotion).version.number == 1
    assert not Job.objects.exists()
