"""What answers hold, to the type; and what one field of a request may hold: the least, the most, and rubbish."""

import json
from datetime import datetime
from uuid import UUID

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from interactions.models import Feedback, PersonalRecord, UserInteraction
from kalimtak.core.models import Job
from registry.models import Deployment
from tests.contract.endpoints import WITH_BODY, ask, error_of
from tests.inference.conftest import LABELS
from training.models import Dataset, TrainingDataItem

LONGEST = 20_000


@pytest.fixture
def carla(installation):
    """Sends JSON with the key that holds every scope."""
    client = Client(headers={"Authorization": f"Bearer {installation.carla.plain}"}, raise_request_exception=False)

    def send(path, body=None, method="POST"):
        return client.generic(method, path, "" if body is None else json.dumps(body), content_type="application/json")

    return send


class TestResults:
    def test_every_value_of_a_result_has_its_type(self, carla):
        result = carla("/api/predict", {"text": "perhaps anger, that was strange"}).json()
        UUID(result["interaction_id"])
        assert {name: type(result[name]) for name in result} == {
            "interaction_id": str,
            "classifier": str,
            "label": str,
            "confidence": float,
            "scores": dict,
            "abstained": bool,
            "threshold": float,
            "alternatives": list,
            "source": str,
            "model_version": str,
            "deployment": str,
            "flags": list,
            "latency_ms": float,
        }
        assert sum(result["scores"].values()) == pytest.approx(1, abs=1e-3)
        assert set(result["scores"]) == set(LABELS)
        assert list(result["scores"].values()) == sorted(result["scores"].values(), reverse=True)
        assert result["label"] == next(iter(result["scores"])) == "anger"
        assert result["confidence"] == max(result["scores"].values())
        assert result["abstained"] is (result["confidence"] < result["threshold"]) is True
        assert "low_confidence" in result["flags"]
        assert set(result["alternatives"]) <= set(LABELS) - {"anger"}
        assert (result["source"], result["deployment"]) == ("model", "production")

    def test_what_may_be_asked_is_described_in_full(self, carla):
        models = {model["classifier"]: model for model in carla("/api/models", method="GET").json()["models"]}
        assert set(models) == {"emotion", "clarity", "silent"}
        assert {name: type(value) for name, value in models["clarity"].items()} == {
            "classifier": str,
            "name": str,
            "description": str,
            "route": str,
            "default": bool,
            "labels": list,
            "descriptions": dict,
            "input_fields": list,
            "label_field": str,
            "multi_label": bool,
            "threshold": float,
            "live": list,
        }
        assert models["clarity"]["live"] == [{"model_version": "clarity/1", "role": "production", "share": 100}]
        assert (models["clarity"]["input_fields"], models["clarity"]["route"]) == (
            ["question", "context"],
            "/api/classify/clarity",
        )
        assert [model for model in models.values() if model["default"]] == [models["emotion"]]
        assert models["silent"]["live"] == []

    def test_a_classifier_that_cannot_answer_yet_is_503_and_says_when_to_come_back(self, carla):
        response = carla("/api/classify/silent", {"text": "hello"})
        assert error_of(response) == (503, "no_model")

    def test_the_longest_text_is_answered_and_one_character_more_is_413(self, carla):
        for path in ("/api/predict", "/api/classify/emotion"):
            assert carla(path, {"text": "ا" * LONGEST}).status_code == 200
            assert error_of(carla(path, {"text": "ا" * (LONGEST + 1)})) == (413, "too_long")

    def test_the_longest_batch_is_answered_and_one_text_more_is_400(self, carla):
        assert len(carla("/api/predict", {"texts": ["joy"] * 256}).json()["results"]) == 256
        assert error_of(carla("/api/predict", {"texts": ["joy"] * 257})) == (400, "invalid_input")
        assert error_of(carla("/api/predict", {"texts": []})) == (400, "invalid_input")

    @pytest.mark.parametrize(
        ("body", "place"),
        [
            ({"texts": ["joy", "joy", "joy", ""]}, "texts.3"),
            ({"texts": ["joy", 5]}, "texts.1"),
            ({"texts": "joy"}, "texts"),
            ({"items": [{"text": "joy"}, {"text": " \u200b"}]}, "items.1.text"),
            ({"items": [{"text": "joy"}, {}]}, "items.1.text"),
            ({"items": [{"text": "joy", "colour": "red"}]}, "items.0.colour"),
            ({"items": [{"text": "joy", "subject": 5}]}, "items.0.subject"),
            ({"items": ["joy"]}, "items.0"),
            ({"text": "joy", "top_k": 0}, "top_k"),
            ({"text": "joy", "top_k": 1_001}, "top_k"),
            ({"text": "joy", "top_k": 1.0}, "top_k"),
            ({"text": "joy", "top_k": True}, "top_k"),
            ({"text": "joy", "top_k": 10**400}, "top_k"),
            ({"text": "joy", "request_id": "x" * 101}, "request_id"),
            ({"text": "joy", "request_id": "a\nb"}, "request_id"),
            ({"text": "joy", "request_id": ""}, "request_id"),
            ({"text": "joy", "subject": "x" * 201}, "subject"),
            ({"text": "joy", "subject": {"id": 5}}, "subject"),
            ({"text": "joy", "classifier": ["emotion"]}, "classifier"),
            ({"text": ["joy"]}, "text"),
            ({"text": None}, "text"),
            ({"": "joy"}, '""'),
        ],
    )
    def test_the_place_of_what_is_wrong_is_named(self, carla, body, place):
        response = carla("/api/predict", body)
        assert error_of(response) == (400, "invalid_input")
        assert list(response.json()["error"]["fields"]) == [place]
        assert UserInteraction.objects.count() == 1

    def test_top_k_leaves_the_rest_of_the_result_alone(self, carla):
        whole = carla("/api/predict", {"text": "anger"}).json()
        short = carla("/api/predict", {"text": "anger", "top_k": 2}).json()
        assert list(short["scores"]) == list(whole["scores"])[:2]
        assert {name: short[name] for name in ("label", "confidence", "alternatives")} == {
            name: whole[name] for name in ("label", "confidence", "alternatives")
        }
        assert len(carla("/api/predict", {"text": "anger", "top_k": 1_000}).json()["scores"]) == len(LABELS)

    def test_a_repeated_request_is_answered_as_before_also_by_its_route(self, carla):
        body = {"text": "joy", "request_id": "r1"}
        first = carla("/api/predict", body)
        assert carla("/api/predict/", body).json() == first.json()
        assert error_of(carla("/api/predict", body | {"text": "anger"})) == (409, "request_id_reused")
        assert error_of(carla("/api/predict", body | {"subject": "amal"})) == (409, "request_id_reused")

    def test_who_asks_may_call_themselves_anything(self, installation):
        agent = {"User-Agent": "curl\x00 سعيد " + "x" * 10_000}
        assert ask(WITH_BODY[0], installation, installation.carla.plain, headers=agent).status_code == 200
        assert len(PersonalRecord.objects.get().user_agent) == 300


class TestRubbish:
    """NUL, which PostgreSQL cannot hold; numbers that no column holds; texts that are too long for theirs."""

    def test_nul_is_stripped_from_every_text(self, installation):
        for endpoint in WITH_BODY:
            body = {name: with_nul(value) for name, value in endpoint.body(installation).items()}
            content = json.dumps(body).encode()
            assert b"\\u0000" in content
            response = ask(endpoint, installation, installation.carla.plain, content=content)
            assert response.status_code == endpoint.status, (endpoint.path, response.content)
        for row in UserInteraction.objects.values("fields", "comment"):
            assert "\\u0000" not in json.dumps(row)

    def test_nul_is_stripped_from_feedback_and_examples(self, carla, installation):
        given = {"interaction_id": str(installation.interaction.pk), "comment": "a\x00b", "correct_label": "joy\x00"}
        assert carla("/api/feedback", given | {"correct_response": "c\x00d"}).status_code == 201
        feedback = Feedback.objects.get()
        assert (feedback.comment, feedback.correct_response, feedback.correct_label) == ("ab", "cd", "joy")
        example = {"classifier": "emotion", "text": "so\x00 angry", "correct_label": "anger"}
        response = carla("/api/feedback", example)
        assert response.status_code == 201
        assert TrainingDataItem.objects.get(pk=response.json()["item_id"]).fields == {"text": "so angry"}
        assert error_of(carla("/api/feedback", example | {"text": "\x00"})) == (400, "invalid_input")

    @pytest.mark.parametrize("number", [2**31, 2**63, 2**64, 10**40, -1, 0])
    def test_a_number_that_no_column_holds_is_no_fault_of_ours(self, carla, number):
        assert error_of(carla("/api/admin/deploy", {"version": f"emotion/{number}"}))[0] in (400, 404)
        rollback = {"classifier": "emotion", "to": number, "reason": "odd"}
        assert error_of(carla("/api/admin/rollback", rollback)) == (400, "invalid_input")
        assert Deployment.objects.count() == 2

    @pytest.mark.parametrize(
        "slug", ["x" * 63, "x" * 64, "x" * 100_000, "ünïcode", "سعيد", "../etc", "a/b", "\x00", " "]
    )
    def test_a_classifier_that_cannot_be_is_refused_everywhere(self, carla, slug):
        for path, body in {
            "/api/predict": {"text": "joy", "classifier": slug},
            "/api/feedback": {"classifier": slug, "text": "joy", "correct_label": "joy"},
            "/api/admin/curate-training-data": {"classifier": slug},
            "/api/admin/retrain": {"classifier": slug},
            "/api/admin/rollback": {"classifier": slug, "reason": "odd"},
            "/api/admin/load-dataset": {"classifier": slug, "url": "https://data.example.org/a.csv"},
        }.items():
            assert error_of(carla(path, body)) in ((400, "invalid_input"), (404, "not_found")), path

    @pytest.mark.parametrize(
        "interaction", ["", "x", "0" * 32, "0" * 65, "{0199a0a0-0000-7000-8000-000000000000}", "\x00"]
    )
    def test_an_interaction_that_cannot_be_is_refused(self, carla, interaction):
        answer = error_of(carla("/api/feedback", {"interaction_id": interaction, "rating": 5}))
        assert answer in ((400, "invalid_input"), (404, "not_found"))

    def test_the_longest_words_about_an_answer_are_kept_whole(self, carla, installation):
        words = {"comment": "ا" * 5_000, "correct_response": "ا" * 20_000, "subject": "ا" * 200}
        response = carla("/api/feedback", {"interaction_id": str(installation.interaction.pk), "rating": 1} | words)
        assert response.status_code == 201
        feedback = Feedback.objects.get()
        assert (len(feedback.comment), len(feedback.correct_response)) == (5_000, 20_000)

    def test_of_a_hundred_thousand_unknown_keys_ten_are_named(self, carla):
        body = {f"key {number} {'x' * 100}": "x" for number in range(50_000)}
        for path in ("/api/predict", "/api/feedback", "/api/admin/retrain"):
            response = carla(path, body)
            assert error_of(response) == (400, "invalid_input")
            assert len(response.json()["error"]["fields"]) <= 10
            assert len(response.content) < 5_000, path


def with_nul(value):
    return f"{value}\x00" if isinstance(value, str) else value


class TestOperating:
    def test_a_deployment_has_its_types_and_a_refusal_its_reasons(self, carla):
        made = carla("/api/admin/deploy", {"version": "emotion/2"}).json()
        assert type(made["deployment"]) is type(made["share"]) is int
        assert datetime.fromisoformat(made["started_at"]).utcoffset().total_seconds() == 0
        refused = carla("/api/admin/deploy", {"version": "emotion/3"})
        assert error_of(refused) == (409, "gate_refused")
        assert refused.json()["error"]["fields"]["gate"]
        assert error_of(carla("/api/admin/deploy", {"version": "emotion/2"})) == (409, "already_live")

    def test_where_nothing_was_before_there_is_nothing_to_roll_back(self, carla):
        for slug in ("emotion", "silent"):
            refused = carla("/api/admin/rollback", {"classifier": slug, "reason": "odd"})
            assert error_of(refused) == (409, "nothing_to_roll_back")

    def test_a_dry_run_says_what_would_happen_and_does_nothing(self, carla, installation):
        carla("/api/feedback", {"interaction_id": str(installation.interaction.pk), "rating": 5})
        items = TrainingDataItem.objects.count()
        dry = carla("/api/admin/curate-training-data", {"dry_run": True}).json()
        assert TrainingDataItem.objects.count() == items
        assert carla("/api/admin/curate-training-data", {"dry_run": False}).json() == dry
        assert TrainingDataItem.objects.count() == items + 1
        assert dry["extracted"] == dry["loaded"] == 1
        reasons, shares = dry.pop("reasons"), dry.pop("shares")
        assert dry.pop("notes") == {}
        assert shares["emotion"].keys() >= {"label", "source"}
        assert all(len(pair) == 2 for kinds in shares.values() for kind in kinds.values() for pair in kind.values())
        assert all(type(value) is int for value in (*dry.values(), *reasons.values()))

    def test_a_job_tells_how_far_it_is(self, carla, installation):
        seen = carla(f"/api/admin/jobs/{installation.job.pk}", method="GET").json()
        assert (seen["id"], seen["kind"], seen["state"]) == (str(installation.job.pk), "curate", "queued")
        assert (seen["progress"], seen["note"], seen["result"], seen["error"]) == (0.0, "", None, "")
        assert (seen["attempt"], seen["cancel_requested"]) == (0, False)
        assert seen["created_at"].endswith("Z") and seen["started_at"] is seen["finished_at"] is None
        stopped = carla(f"/api/admin/jobs/{installation.job.pk}/cancel").json()
        assert (stopped["state"], stopped["finished_at"] is None) == ("cancelled", False)
        assert error_of(carla(f"/api/admin/jobs/{installation.job.pk}/cancel"))[0] == 409


class TestUploads:
    @pytest.fixture
    def upload(self, installation):
        client = Client(headers={"Authorization": f"Bearer {installation.carla.plain}"}, raise_request_exception=False)
        return lambda **form: client.post("/api/admin/load-dataset", form)

    @staticmethod
    def rows(name="rows.csv", content=b"text,label\nwhat a joy,joy\n"):
        return SimpleUploadedFile(name, content)

    def test_a_form_with_every_field_is_taken(self, upload):
        form = {"then": "train", "role": "training", "split": "train", "text_field": "text", "label_field": "label"}
        response = upload(classifier="emotion", file=self.rows(), **form)
        assert response.status_code == 202
        assert Dataset.objects.get(pk=response.json()["dataset"]).options == {
            "text_fields": ["text"],
            "label_field": "label",
            "split": "train",
        }
        assert Job.objects.get(pk=response.json()["job"]).params["then"] == "train"

    @pytest.mark.parametrize("name", ["rows.exe", "rows", "rows.xlsx", "rows.csv.zip", "rows.pkl", "rows.csv.gz.exe"])
    def test_a_file_of_a_kind_that_cannot_be_read_is_refused_at_once(self, upload, name):
        response = upload(classifier="emotion", file=self.rows(name))
        assert error_of(response) == (400, "dataset_refused")
        assert list(response.json()["error"]["fields"]) == ["file"]
        assert not Dataset.objects.exists()

    @pytest.mark.parametrize("name", ["x" * 300 + ".csv", "<script>alert(1)</script>.csv", "سعيد.csv", "..\\..\\a.csv"])
    def test_a_hostile_name_is_only_a_name(self, upload, name):
        response = upload(classifier="emotion", file=self.rows(name))
        assert response.status_code == 202
        kept = Dataset.objects.get().name
        assert kept.endswith(".csv") and len(kept) <= 200 and "/" not in kept and "\\" not in kept

    def test_an_address_of_something_else_is_refused_at_once(self, carla):
        response = carla("/api/admin/load-dataset", {"classifier": "emotion", "url": "https://data.example.org/x.exe"})
        assert error_of(response) == (400, "dataset_refused")
        assert list(response.json()["error"]["fields"]) == ["url"]

    @pytest.mark.parametrize(
        ("form", "place"),
        [
            ({"file": None}, "file"),
            ({"url": "https://data.example.org/a.csv"}, "file"),
            ({"then": "celebrate"}, "then"),
            ({"role": "x\x00"}, "role"),
            ({"split": "all"}, "split"),
            ({"text_field": ["a", "b", "c"]}, "text_field"),
            ({"label_field": "x" * 201}, "label_field"),
            ({"clasifier": "emotion"}, "clasifier"),
        ],
    )
    def test_a_field_that_cannot_be_meant_is_named(self, upload, form, place):
        whole = {"classifier": "emotion", "file": self.rows()} | form
        response = upload(**{name: value for name, value in whole.items() if value is not None})
        assert error_of(response) == (400, "invalid_input")
        assert list(response.json()["error"]["fields"]) == [place]
        assert not Dataset.objects.exists()

    def test_an_empty_file_and_a_form_that_is_none_are_refused(self, upload, installation):
        assert error_of(upload(classifier="emotion", file=self.rows(content=b""))) == (400, "invalid_input")
        key, endpoint = installation.carla.plain, next(each for each in WITH_BODY if "load" in each.path)
        for kind, content in {
            "multipart/form-data": b"--x--",
            "multipart/form-data; boundary=": b"--x--",
            "multipart/form-data; boundary=x": b"no form at all",
            "multipart/form-data; boundary=a b": b"--x--",
        }.items():
            answer = error_of(ask(endpoint, installation, key, content=content, content_type=kind))
            assert answer == (400, "invalid_input"), kind

    def test_a_form_of_a_hundred_thousand_fields_is_refused(self, upload):
        assert error_of(upload(**{f"field{number}": "x" for number in range(2_000)})) == (400, "invalid_input")
