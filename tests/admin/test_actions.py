"""Buttons of the admin: each asks first, then calls the real service as the person who pressed it."""

import html
import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from kalimtak.core import jobs
from kalimtak.core.models import ApiKey, AuditEvent, Job
from registry.models import Deployment
from tests.admin.conftest import HOSTILE
from training.models import Dataset, TrainingDataItem, TrainingRun


def url(page, *args):
    return reverse(f"admin:{page}", args=args)


def last_audit(action):
    return AuditEvent.objects.filter(action=action).first()


@pytest.fixture
def buttons(world):
    """(address, who may press it) of every verb that asks first."""
    return {
        "train": (url("registry_classifier_train", world.emotion.pk), {"olga", "tala"}),
        "rollback": (url("registry_classifier_rollback", world.emotion.pk), {"olga", "dina"}),
        "deploy": (url("registry_modelversion_deploy", world.second.pk), {"olga", "dina"}),
        "verify": (url("registry_modelversion_verify", world.second.pk), {"olga", "dina"}),
        "cancel": (url("core_job_cancel", world.waiting_job.pk), {"olga", "tala"}),
        "cancel_run": (url("training_trainingrun_cancel", world.run.pk), {"olga", "tala"}),
        "curate": (url("training_trainingdataitem_curate"), {"olga", "tala"}),
        "upload": (url("training_dataset_upload"), {"olga", "tala"}),
        "close": (url("core_alert_close", world.alert.pk), {"olga", "tala", "dina"}),
        "revoke": (url("core_apikey_revoke", world.key.pk), {"olga"}),
        "run": (url("django_q_schedule_run", _schedule().pk), {"olga"}),
    }


def _schedule():
    from django_q.models import Schedule

    return Schedule.objects.get(name="curate")


@pytest.mark.parametrize("name", ["olga", "rami", "tala", "dina", "nadia"])
def test_each_button_is_only_for_those_with_its_permission(buttons, sign_in, name):
    client = sign_in(name)
    for address, allowed in buttons.values():
        expected = 200 if name in allowed else 403
        assert client.get(address).status_code == expected, address
        if name not in allowed:
            assert client.post(address, {"reason": "x"}).status_code == 403, address


def test_asking_changes_nothing(buttons, sign_in):
    client = sign_in("olga")
    before = AuditEvent.objects.count(), Job.objects.count(), Deployment.objects.count()
    for address, _allowed in buttons.values():
        client.get(address)
    assert (AuditEvent.objects.count(), Job.objects.count(), Deployment.objects.count()) == before


def test_a_post_without_csrf_token_is_refused(buttons, people):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(people.olga)
    for address, _allowed in buttons.values():
        assert strict.post(address, {"reason": "x"}).status_code == 403


def test_dina_deploys_a_version(world, sign_in):
    response = sign_in("dina").post(url("registry_modelversion_deploy", world.second.pk), {"reason": "better"})
    assert response.status_code == 302
    deployment = Deployment.objects.live().get()
    assert (deployment.version, deployment.actor, deployment.forced) == (world.second, "dina", False)
    assert last_audit("version.deploy").actor == "dina"


@pytest.fixture
def worse(world):
    from registry.services import version_judge

    from .conftest import make_version

    version = make_version(world.emotion, right=60)
    version_judge(version)
    return version


def test_what_the_gate_refuses_stays_out_and_the_page_says_why(world, worse, sign_in):
    response = sign_in("dina").post(url("registry_modelversion_deploy", worse.pk), {"reason": "try"})
    assert response.status_code == 200
    assert "Macro-F1 fell from" in response.text
    assert Deployment.objects.live().get().version == world.first


def test_dina_cannot_force_even_with_a_made_up_field(world, worse, sign_in):
    data = {"reason": "I want it", "force": "on"}
    assert sign_in("dina").post(url("registry_modelversion_deploy", worse.pk), data).status_code == 200
    assert Deployment.objects.live().get().version == world.first


def test_olga_forces_a_version_with_a_reason_only(world, worse, sign_in):
    client, address = sign_in("olga"), url("registry_modelversion_deploy", worse.pk)
    assert "Say why" in client.post(address, {"force": "on", "reason": ""}).text
    assert client.post(address, {"force": "on", "reason": "the set is wrong"}).status_code == 302
    deployment = Deployment.objects.live().get()
    assert (deployment.version, deployment.forced, deployment.reason) == (worse, True, "the set is wrong")


def test_dina_rolls_back_with_a_reason(world, sign_in):
    client, address = sign_in("dina"), url("registry_classifier_rollback", world.emotion.pk)
    client.post(url("registry_modelversion_deploy", world.second.pk), {"reason": "better"})
    assert client.post(address, {"reason": ""}).status_code == 200
    assert Deployment.objects.live().get().version == world.second
    assert client.post(address, {"reason": "it was not"}).status_code == 302
    assert Deployment.objects.live().get().version == world.first
    assert last_audit("version.rollback").data["reason"] == "it was not"


def test_nothing_to_roll_back_is_said_on_the_page(world, sign_in):
    text = sign_in("dina").post(url("registry_classifier_rollback", world.emotion.pk), {"reason": "x"}).text
    assert "no earlier version" in text


def test_tala_starts_a_run_and_lands_on_its_page(world, sign_in):
    response = sign_in("tala").post(url("registry_classifier_train", world.emotion.pk), {"then": "none"})
    run = TrainingRun.objects.first()
    assert response.url == url("training_trainingrun_change", run.pk)
    assert (run.job.kind, run.job.state, run.job.actor) == ("train", "queued", "tala")


def test_tala_trains_another_type_with_settings_of_her_own(world, sign_in):
    settings = "training_config.C=0.5\r\n\r\n  training_config.ngram_range=[1, 1]\r\ntraining_config.num_epochs=9\r\n"
    data = {"then": "deploy", "family": "embedding", "settings": settings}
    response = sign_in("tala").post(url("registry_classifier_train", world.emotion.pk), data)
    run = TrainingRun.objects.first()
    assert response.url == url("training_trainingrun_change", run.pk)
    assert (run.family, run.then) == ("embedding", "deploy")
    kept = run.recipe["training_config"]
    assert (kept["C"], kept["ngram_range"], kept["num_epochs"]) == (0.5, [1, 1], 9)
    told = "embedding does not use: training_config.num_epochs, training_config.ngram_range."
    assert run.notes == [told]
    assert told in sign_in("tala").get(response.url).text
    world.emotion.refresh_from_db()
    assert world.emotion.family == "classic", "the classifier stays as it is"
    assert world.emotion.recipe["training_config"]["C"] == 5.0


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            {"settings": "training_config.num_epoch=2"},
            "training_config.num_epoch: unknown key; did you mean num_epochs",
        ),
        ({"settings": "num_epochs=2"}, "expected section.key=value"),
        ({"settings": "training_config.C=1\ntraining_config.C=many"}, "expected a number from 1e-06 to 1e+06"),
        ({"settings": "model_config.num_labels=7"}, "model_config.num_labels is 7, but emotion has 4 labels"),
        ({"settings": "model_config.use_8bit=true"}, "use_8bit: goes with type lora only, not with classic"),
        ({"settings": "training_config.C=\x00"}, "Null characters are not allowed."),
        ({"family": "custom"}, "Type custom runs a loader, and emotion has none"),
        ({"family": "oracle"}, "oracle is not one of the available choices"),
        ({"family": "ensemble"}, "model_config.members"),
    ],
)
def test_odd_settings_of_a_run_are_refused_on_the_page_as_the_command_does(world, sign_in, data, told):
    page = sign_in("tala").post(url("registry_classifier_train", world.emotion.pk), {"then": "none"} | data).text
    assert told in html.unescape(page)
    assert html.escape(data.get("settings", "").strip("\x00")).partition("\n")[0] in page, "what was typed stays"
    assert TrainingRun.objects.count() == 1
    assert not Job.objects.filter(kind="train").exclude(pk=world.job.pk).exists()


def test_the_fields_of_a_run_are_labelled_and_explained(world, sign_in):
    page = sign_in("tala").get(url("registry_classifier_train", world.emotion.pk)).text
    for name, label in (("then", "Afterwards"), ("family", "Model type"), ("settings", "Settings")):
        assert re.search(rf'<label[^>]*for="id_{name}"[^>]*>\s*{label}', page), name
    assert "one section.key=value per line" in page
    assert re.search(r'<option value="" selected>\s*the classifier(&#x27;|\')s own', page)


def test_a_run_without_data_is_refused_with_the_remedy(world, sign_in):
    TrainingDataItem.objects.all().delete()
    response = sign_in("tala").post(url("registry_classifier_train", world.emotion.pk), {"then": "none"})
    assert "approved examples" in response.text
    assert TrainingRun.objects.count() == 1


def test_tala_cancels_a_waiting_job(world, sign_in):
    sign_in("tala").post(url("core_job_cancel", world.waiting_job.pk))
    world.waiting_job.refresh_from_db()
    assert world.waiting_job.state == Job.State.CANCELLED
    assert last_audit("job.cancel").actor == "tala"


def test_cancelling_what_has_ended_is_refused(world, sign_in):
    assert "already finished" in sign_in("tala").post(url("core_job_cancel", world.job.pk)).text


def test_tala_asks_for_a_curation_and_lands_on_its_job(world, sign_in):
    data = {"classifier": world.emotion.pk, "dry_run": "on"}
    response = sign_in("tala").post(url("training_trainingdataitem_curate"), data)
    job = Job.objects.get(kind="curate")
    assert response.url == url("core_job_change", job.pk)
    assert job.params == {"classifier": "emotion", "dry_run": True}


def test_tala_uploads_a_file_and_sees_what_it_holds(world, sign_in, jsonl):
    from training.services import dataset_load

    data = {"file": jsonl, "classifier": world.emotion.pk, "role": "training", "split": "", "then": "none"}
    client = sign_in("tala")
    response = client.post(url("training_dataset_upload"), data)
    dataset = Dataset.objects.first()
    assert response.url == url("training_dataset_load", dataset.pk) + "?then=none"
    assert "joy text" in client.get(response.url).text
    response = client.post(response.url, {"then": "none"})
    assert response.url == url("training_dataset_change", dataset.pk)
    dataset.refresh_from_db()
    assert (dataset.job.kind, dataset.actor) == ("import", "tala")
    assert "hx-get" in client.get(response.url).text
    dataset_load(dataset)
    text = client.get(response.url).text
    assert "24" in text
    assert "repeat over 24 rows" in text


def test_a_file_name_cannot_lead_out_of_the_store(world, sign_in, jsonl):
    jsonl.name = "../../etc/passwd.jsonl"
    data = {"file": jsonl, "classifier": world.emotion.pk, "role": "training", "split": "", "then": "none"}
    sign_in("tala").post(url("training_dataset_upload"), data)
    assert Dataset.objects.first().name == "passwd.jsonl"


def test_olga_makes_a_key_that_is_shown_once(world, sign_in):
    client = sign_in("olga")
    data = {"name": "Mobile", "scopes": ["predict", "feedback"], "rate": "60/m"}
    response = client.post(url("core_apikey_add"), data)
    key = ApiKey.objects.get(name="Mobile")
    assert "no-store" in response["Cache-Control"]
    assert f"{key.prefix}." in response.text
    assert (key.scopes, key.rate, key.created_by.username) == (["feedback", "predict"], "60/m", "olga")
    assert f"{key.prefix}." not in client.get(url("core_apikey_change", key.pk)).text


def test_olga_revokes_a_key(world, sign_in):
    sign_in("olga").post(url("core_apikey_revoke", world.key.pk))
    world.key.refresh_from_db()
    assert world.key.revoked_at is not None
    assert last_audit("api_key.revoke").actor == "olga"


def test_olga_runs_a_schedule_now_and_its_time_stays(world, sign_in):
    schedule = _schedule()
    sign_in("olga").post(url("django_q_schedule_run", schedule.pk))
    assert Job.objects.filter(kind="curate", key__startswith="schedule:curate:").count() == 1
    assert _schedule().next_run == schedule.next_run


def test_olga_switches_a_schedule_off(world, sign_in):
    schedule = _schedule()
    data = {"schedule_type": "C", "cron": "0 5 * * *", "minutes": "", "next_run_0": "2030-01-01", "next_run_1": "05:00"}
    response = sign_in("olga").post(url("django_q_schedule_change", schedule.pk), data)
    assert response.status_code == 302
    schedule.refresh_from_db()
    assert (schedule.repeats, schedule.cron, schedule.func) == (0, "0 5 * * *", "kalimtak.schedules.fire")
    assert last_audit("schedule.change").actor == "olga"


def test_verifying_a_version_with_a_changed_file_marks_it_corrupt(world, sign_in, settings):
    weights = settings.KALIMTAK_MODELS_STORE / "emotion" / "2" / "serving" / "model.safetensors"
    weights.write_bytes(b"other")
    response = sign_in("dina").post(url("registry_modelversion_verify", world.second.pk))
    assert "corrupt" in response.text
    world.second.refresh_from_db()
    assert world.second.status == "corrupt"


def test_the_picture_comes_from_the_store(world, sign_in):
    response = sign_in("vera").get(url("registry_modelversion_picture", world.second.pk))
    assert response["Content-Type"] == "image/png"
    assert b"".join(response.streaming_content).startswith(b"\x89PNG")
    assert sign_in("nadia").get(url("registry_modelversion_picture", world.second.pk)).status_code == 403


def test_a_panel_that_is_gone_reloads_the_page(world, sign_in):
    Dataset.objects.filter(pk=world.dataset.pk).update(state="ready")
    response = sign_in("tala").get(url("training_dataset_panel", world.dataset.pk, "progress"))
    assert (response.text, response["HX-Refresh"]) == ("", "true")


def test_a_page_on_which_nothing_moves_asks_for_nothing(world, sign_in):
    """The classifier's panels show who is live, which makes none of them a live panel."""
    for name, obj in (("registry_classifier_change", world.emotion), ("registry_modelversion_change", world.second)):
        page = sign_in("olga").get(url(name, obj.pk)).text
        assert 'id="panel-' in page
        assert "every 2s" not in page


def test_panels_ask_for_their_own_permission(world, sign_in):
    address = url("interactions_userinteraction_panel", world.interaction.pk, "personal")
    assert sign_in("olga").get(address).status_code == 200
    assert sign_in("vera").get(address).status_code == 403


def test_a_live_panel_is_redrawn_and_reloads_the_page_at_its_end(world, sign_in):
    client, address = sign_in("tala"), url("core_job_panel", world.waiting_job.pk, "progress")
    assert "HX-Refresh" not in client.get(address)
    Job.objects.filter(pk=world.waiting_job.pk).update(state="succeeded")
    response = client.get(address)
    assert response["HX-Refresh"] == "true"
    assert "every 2s" not in response.text
    assert sign_in("nadia").get(address).status_code == 403


def words_of(client, job, **values):
    Job.objects.filter(pk=job.pk).update(state="running", token=1, attempt=1, **values)
    return client.get(url("core_job_panel", job.pk, "progress")).context["words"]


def test_the_rest_is_told_by_what_this_attempt_did_and_not_while_nothing_is_heard(world, sign_in):
    client, job, now = sign_in("tala"), world.waiting_job, timezone.now()
    lease = jobs.lease_of("import")

    def words(heard, **values):
        since = {"started_at": now - timedelta(seconds=60), "lease_until": now - timedelta(seconds=heard) + lease}
        return words_of(client, job, **{"note": "", "progress": 0.6, "progress_before": 0.0} | since | values)

    assert words(0) == ["about 40 s left"]
    assert words(0, progress_before=0.4) == ["about 2 min 00 s left"]
    assert words(0, progress_before=0.57) == []
    assert words(9) in (["about 25 s left"], ["about 24 s left"])  # it falls while nothing comes
    assert words(25, note="Epoch 2 of 3, 4 s left")[0] == "Epoch 2 of 3"
    assert words(25) in (["no sign of life for 25 s"], ["no sign of life for 26 s"])


def test_a_job_shows_what_was_asked_for_and_not_where_it_stands(world, sign_in):
    asked = {"classifier": "emotion", "dry_run": False, "name": HOSTILE, jobs.RESUME: {"before": {"emotion": 1012}}}
    Job.objects.filter(pk=world.waiting_job.pk).update(params=asked)
    page = sign_in("tala").get(url("core_job_change", world.waiting_job.pk)).text
    assert "<dt>classifier</dt><dd><bdi>emotion</bdi></dd>" in page
    assert "<dt>dry run</dt><dd><bdi>no</bdi></dd>" in page
    assert "1012" not in page
    assert "<script>alert" not in page
