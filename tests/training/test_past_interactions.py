"""Logs of the past become interactions and feedback, once; what is exported comes back as it was."""

import csv
import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from interactions.models import Feedback, Subject, UserInteraction
from kalimtak import fsck
from kalimtak.core import jobs
from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import Alert, AuditEvent
from registry.models import Classifier
from training import services
from training.models import Dataset, TrainingDataItem

pytestmark = pytest.mark.django_db

CONVAI = Path(__file__).resolve().parents[3] / "shared" / "data" / "feedback_convai2" / "interactions.csv"


@pytest.fixture
def load(mood):
    def load(content, name="log.csv", classifier=None, **options):
        raw = content if isinstance(content, bytes) else content.encode()
        dataset = services.interactions_add(
            classifier or mood, source=io.BytesIO(raw), name=name, options=options, actor="olga", ring=False
        )
        return services.interactions_load(dataset)

    return load


def outcome(dataset):
    return tuple(dataset.report["outcome"][name] for name in ("recorded", "repeated", "feedback", "changed"))


LOG = """text,label,thumbs,user,created_at,correct_label
sunny,glad,up,ann,2026-01-02T03:04:05Z,
rain,glad,down,bob,2026-01-02 03:05:06,sad
moon,calm,,ann,1767323106,
"""


def test_a_log_becomes_interactions_with_feedback(load):
    dataset = load(LOG)
    assert (dataset.state, dataset.origin, dataset.rows) == ("ready", "feedback", 3)
    assert outcome(dataset) == (3, 0, 2, 0)
    sunny = UserInteraction.objects.get(fields__text="sunny")
    assert (sunny.label, sunny.rating, sunny.source, sunny.version) == ("glad", 5, "imported", None)
    assert sunny.created_at.isoformat() == "2026-01-02T03:04:05+00:00"
    rain = Feedback.objects.get(interaction__fields__text="rain")
    assert (rain.rating, rain.correct_label, rain.trusted, rain.curated_at) == (1, "sad", True, None)
    assert rain.source.startswith("subject:")
    assert Subject.objects.count() == 2
    assert "ann" not in str(list(Subject.objects.values())) + str(list(Feedback.objects.values()))


def test_importing_again_changes_nothing_whatever_the_order(load):
    load(LOG)
    before = [list(model.objects.order_by("pk").values()) for model in (UserInteraction, Feedback, Subject)]
    head, *rows = LOG.splitlines()
    assert outcome(load("\n".join([head, *reversed(rows)]))) == (0, 3, 0, 0)
    assert [list(model.objects.order_by("pk").values()) for model in (UserInteraction, Feedback, Subject)] == before


def test_another_rating_of_the_same_answer_is_a_later_word(load):
    load(LOG)
    assert outcome(load(LOG.replace("sunny,glad,up", "sunny,glad,down"))) == (0, 3, 0, 1)
    sunny = Feedback.objects.get(interaction__fields__text="sunny")
    assert (sunny.rating, sunny.history[0]["rating"], sunny.interaction.rating) == (1, 5, 1)
    assert outcome(load(LOG)) == (0, 3, 0, 0), "an old word is no new one"
    late = LOG.replace("moon,calm,,", "moon,calm,4,").replace("sunny,glad,up", "sunny,glad,down")
    assert outcome(load(late)) == (0, 3, 1, 0)
    assert UserInteraction.objects.get(fields__text="moon").rating == 4


def test_an_id_of_another_system_tells_rows_apart(load):
    body = "id,text,label,rating\n{}1,hi,glad,5\n{}2,hi,glad,1\n"
    assert outcome(load(body.format("m", "m"))) == (2, 0, 2, 0)
    assert outcome(load(body.format("m", "n"))) == (1, 1, 1, 0)
    assert UserInteraction.objects.count() == 3


@pytest.mark.parametrize(
    ("cell", "rating"),
    [("up", 5), ("DOWN", 1), ("👍", 5), ("thumbs_down", 1), ("4", 4), ("3.0", 3), ("", None), ("+1", 5), ("-1", 1)],
)
def test_thumbs_and_stars(load, cell, rating):
    load(f"text,label,rating\nsunny,glad,{cell}\n")
    assert UserInteraction.objects.get().rating == rating


def test_bad_rows_are_named_and_the_others_recorded(load):
    dataset = load(
        "text,label,rating,created_at,confidence,correct_label\nok,glad,5,,,\nx,odd,5,,,\ny,glad,7,,,\n,glad,5,,,\n"
        "z,glad,5,yesterday,,\nz,glad,5,2190-01-01,,\nz,glad,5,,2,\nz,glad,1,,,odd\nshort\n"
    )
    assert outcome(dataset)[0] == 1
    reasons = {error["line"]: error["reason"] for error in dataset.report["errors"]}
    assert list(reasons) == [10, 3, 4, 5, 6, 7, 8, 9]  # what the reader refuses comes first in a chunk
    assert reasons[3] == "Unknown label 'odd' (the answer)."
    assert reasons[4] == "The rating '7' is neither 1 to 5 nor a thumb, up or down."
    assert reasons[6].startswith("The time 'yesterday'")
    assert reasons[9] == "Unknown label 'odd' (the correction)."
    assert dataset.report["errors_file"]


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("text,rating\nx,5\n", {}, "no column with the labels"),
        ("text,label,rating\nx,odd,5\n", {}, "no row that can be recorded"),
        ("text,label\nx,glad\n", {"rating_field": "stars"}, "no column 'stars'"),
        (b"text,label\nok,glad\ncaf\xe9,sad\n", {}, "not UTF-8"),
    ],
)
def test_a_log_nothing_can_be_recorded_of_is_refused_and_changes_nothing(load, content, options, says):
    with pytest.raises(InvalidInput, match=says):
        load(content, **options)
    assert Dataset.objects.get().state == "failed"
    assert not UserInteraction.objects.exists()


def test_what_broke_off_goes_on_at_its_chunk(mood):
    body = "text,label,rating\n" + "".join(f"text {number},glad,5\n" for number in range(1_700))
    dataset = services.interactions_add(mood, source=io.BytesIO(body.encode()), name="l.csv", actor="o", ring=False)

    def cancel(fraction, note):
        if "recorded 1,000" in note:
            raise jobs.JobCancelled

    with pytest.raises(jobs.JobCancelled):
        services.interactions_load(dataset, progress=cancel)
    dataset.refresh_from_db()
    assert (dataset.state, dataset.checkpoint["chunks"], UserInteraction.objects.count()) == ("failed", 2, 1_000)
    assert outcome(services.interactions_load(dataset)) == (1_700, 0, 1_700, 0)


def test_several_labels(load):
    topics = Classifier.objects.create(
        slug="topics", family="classic", labels=["money", "sport"], input_fields=["text"],
        label_config={"multi_label": True, "labels": ["money", "sport"]},
    )  # fmt: skip
    load('{"text": "a", "label": ["sport", "money"], "rating": "up"}\n', "log.jsonl", classifier=topics)
    interaction = UserInteraction.objects.get()
    assert (interaction.label, interaction.labels) == ("money", "money|sport")


# Trust -----------------------------------------------------------------------------------------------------------


def corrections(count, moment, who="user-{}"):
    """A log in which `count` users say that an answer is wrong."""
    rows = [
        f"the {number}th letter in the green box came late,glad,{who.format(number)},{moment(number)},sad"
        for number in range(count)
    ]
    return "text,label,user,created_at,correct_label\n" + "\n".join(rows)


def quarantined_of(classifier):
    classifier.policy = {"review": {"burst": 20}}
    classifier.save()
    services.examples_curate(classifier=classifier)
    return TrainingDataItem.objects.filter(status="quarantined").count()


def words_of(number):
    return f"2025-{number % 12 + 1:02}-{number % 28 + 1:02}T{number % 24:02}:10:00Z"


@pytest.mark.parametrize("who", ["user-{}", "one", ""])
def test_the_corrections_of_months_are_no_flood_of_the_hour_they_are_imported_in(mood, load, who):
    load(corrections(60, words_of, who))
    feedback = Feedback.objects.get(interaction__fields__text__startswith="the 3th")
    assert feedback.said_at.isoformat() == "2025-04-04T03:10:00+00:00"
    assert feedback.updated_at > feedback.said_at
    assert quarantined_of(mood) == 0
    assert not Alert.objects.exists()


@pytest.mark.parametrize("moment", ["", "2026-01-05", "2026-01-05T00:00:00Z"])
def test_a_file_that_tells_no_hour_opens_no_flood(mood, load, moment):
    load(corrections(60, lambda number: moment))
    assert set(Feedback.objects.values_list("said_at", flat=True)) == {None}
    assert quarantined_of(mood) == 0
    assert not Alert.objects.exists()


def test_a_burst_of_one_user_in_the_log_is_one(mood, load):
    load(corrections(60, lambda number: f"2026-01-05T10:{number:02}:00Z", "one"))
    assert quarantined_of(mood) == 60


def test_rows_of_one_hour_that_name_nobody_are_not_one_source(mood, load):
    """Nor are the users of a log new because it begins there."""
    log = corrections(30, lambda number: f"2026-01-05T10:{number:02}:00Z", "").splitlines()
    texts = [f"{'abcdefghij'[number % 10]}ing {'klmnop'[number // 10]}er" for number in range(30)]
    rows = [row.replace(row.split(",", 1)[0], text, 1) for row, text in zip(log[1:], texts, strict=True)]
    load("\n".join([log[0], *rows]))
    named = [f"{text}s,glad,user {text},2026-01-06T10:{n:02}:00Z,sad" for n, text in enumerate(texts)]
    load("\n".join([log[0], *named]))
    assert quarantined_of(mood) == 0
    assert not Alert.objects.exists()


def test_people_in_a_log_are_known_since_what_they_said_there(mood, load, ask, judge):
    """Those who were heard of in a log of last year are not new when they say more here."""
    load(corrections(30, words_of))
    services.examples_curate()
    for number, source in enumerate(Feedback.objects.values_list("source", flat=True).order_by("pk")):
        judge(ask(f"{'abcdefghij'[number % 10]}ing {'klmnop'[number // 10]}er"), source=source, correct_label="sad")
    assert quarantined_of(mood) == 0


# Commands --------------------------------------------------------------------------------------------------------


def run(*words):
    out = io.StringIO()
    call_command(*map(str, words), stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_is_exported_comes_back_into_an_empty_installation(mood, ask, judge, tmp_path, kind):
    texts = ["=1+1", "plain, with\na comma", "مرحبا", "'quoted"]
    for number, text in enumerate(texts):
        subject = Subject.objects.create(pseudonym=f"{number:064x}")
        interaction = ask(text, subject=subject, rating=number + 1, comment="hm", correction="sad")
        judge(interaction, source=f"subject:{subject.pseudonym}", rating=number + 1, comment="hm", correct_label="sad")
    columns = ("id", "fields", "label", "confidence", "rating", "comment", "correction", "created_at", "version_id")
    wanted = list(UserInteraction.objects.order_by("pk").values_list(*columns, "subject__pseudonym"))
    path = tmp_path / f"out.{kind}"
    assert "4 interactions written" in run("export_interactions", path)
    assert AuditEvent.objects.filter(action="interactions.export").exists()
    assert "4 there already" in run("import_interactions", path)
    Feedback.objects.all().delete()
    UserInteraction.objects.all().delete()
    Subject.objects.all().delete()
    printed = run("import_interactions", path)
    assert "4 interactions recorded" in printed
    assert "4 feedback recorded" in printed
    assert list(UserInteraction.objects.order_by("pk").values_list(*columns, "subject__pseudonym")) == wanted


ASKER, OTHER = (Subject(pseudonym=f"{number:064x}") for number in (7, 8))
GIVERS = ("anonymous:0123456789abcdef0123456789abcdef", f"subject:{OTHER.pseudonym}", "key:carla", "user:3", "import:o")


@pytest.fixture
def judged_by_others(mood, ask, judge):
    """Answers that one subject asked for and others judged, and one that nobody's subject asked for."""
    asker = Subject.objects.create(pseudonym=ASKER.pseudonym)
    for number, source in enumerate(GIVERS):
        word = {"rating": 1 + number, "comment": "=1+1" if number else ""}
        interaction = ask(f"text {number}", subject=asker if number else None, correction="sad", **word)
        judge(interaction, source=source, correct_label="sad", trusted=number > 0, **word)


def rows_of(*models):
    return [list(model.objects.order_by("pk").values()) for model in models]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_ones_own_export_is_no_news_whoever_gave_the_feedback(judged_by_others, tmp_path, kind):
    before = rows_of(UserInteraction, Feedback, Subject)
    path = tmp_path / f"out.{kind}"
    run("export_interactions", path)
    printed = run("import_interactions", path)
    assert "5 there already" in printed
    assert outcome(Dataset.objects.get()) == (0, 5, 0, 0)
    assert rows_of(UserInteraction, Feedback, Subject) == before


@pytest.mark.parametrize("left_out", [("feedback_source", "feedback_at"), ("feedback_source", "pseudonym")])
def test_nor_is_one_that_does_not_tell_who_gave_it(judged_by_others, tmp_path, left_out):
    path = tmp_path / "out.jsonl"
    run("export_interactions", path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if k not in left_out}) for row in rows))
    for feedback in Feedback.objects.all():  # said otherwise since
        feedback.history = [{"rating": feedback.rating, "comment": feedback.comment, "correct_label": "sad"}]
        feedback.correct_label = "calm"
        feedback.save()
    before = rows_of(UserInteraction, Feedback, Subject)
    run("import_interactions", path)
    assert outcome(Dataset.objects.get()) == (0, 5, 0, 0)
    assert rows_of(UserInteraction, Feedback, Subject) == before


def test_elsewhere_subjects_and_addresses_stay_who_they_are_and_staff_are_not_mistaken(judged_by_others, tmp_path):
    path = tmp_path / "out.csv"
    run("export_interactions", path)
    said_at = list(Feedback.objects.order_by("interaction").values_list("said_at", flat=True))
    Feedback.objects.all().delete()
    UserInteraction.objects.all().delete()
    assert "5 feedback recorded" in run("import_interactions", path)
    said = list(Feedback.objects.order_by("interaction__created_at").values_list("source", "trusted"))
    assert said == [(GIVERS[0], False), (GIVERS[1], True), *[("import:command line", True)] * 3]
    assert list(Feedback.objects.order_by("interaction").values_list("said_at", flat=True)) == said_at
    assert "0 feedback recorded" in run("import_interactions", path)


def test_a_rating_that_was_changed_in_the_file_is_a_later_word_of_who_gave_it(judged_by_others, tmp_path):
    path = tmp_path / "out.jsonl"
    run("export_interactions", path)
    rows = [json.loads(line) | {"rating": 5} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, rows)))
    run("import_interactions", path)
    assert outcome(Dataset.objects.get()) == (0, 5, 0, 4)
    assert set(Feedback.objects.values_list("source", "rating")) == {(source, 5) for source in GIVERS}


def test_rows_go_to_the_classifier_they_name(mood, tmp_path):
    Classifier.objects.create(slug="other", family="classic", labels=["a", "b"], input_fields=["line"])
    path = tmp_path / "log.jsonl"
    rows = [
        {"classifier": "mood", "text": "x", "label": "glad"},
        {"classifier": "other", "line": "y", "label": "a"},
        {"classifier": "nope", "text": "z", "label": "glad"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "2 interactions recorded" in run("import_interactions", path)
    assert set(UserInteraction.objects.values_list("classifier__slug", flat=True)) == {"mood", "other"}
    with pytest.raises(CommandError, match="There is no file"):
        run("import_interactions", tmp_path / "none.csv")


def test_an_export_is_safe_in_a_spreadsheet_and_holds_no_addresses(ask, tmp_path):
    ask("=cmd()")
    run("export_interactions", tmp_path / "out.csv", "--classifier", "mood")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert row["text"] == "'=cmd()"
    assert "address" not in row
    with pytest.raises(CommandError, match="must end in"):
        run("export_interactions", tmp_path / "out.xlsx")


def test_the_check_of_everything_finds_nothing_wrong_after_an_import(load):
    load(LOG)
    assert [finding for finding in fsck.find(settle_seconds=0) if finding.severity == "error"] == []


def test_a_real_log_goes_through_the_curation(load, capsys):
    """ConvAI2: who wrote a message, person or bot, as messages that people rated confirm it."""
    if not CONVAI.is_file():
        pytest.skip("needs shared/data/feedback_convai2")
    speaker = Classifier.objects.create(
        slug="speaker", family="classic", labels=["bot", "human"], input_fields=["text"], label_field="sender",
        policy={"review": {"min_rating": 4}},
    )  # fmt: skip
    dataset = load(CONVAI.read_bytes(), classifier=speaker, rating_field="label", text_fields=["text"])
    report = dataset.report
    assert report["rows"] == 4_316
    assert report["ratings"]["5"] + report["ratings"]["1"] + report["error_count"] >= 430
    assert outcome(load(CONVAI.read_bytes(), classifier=speaker, rating_field="label", text_fields=["text"]))[0] == 0
    stats = services.examples_curate(classifier=speaker)
    with capsys.disabled():
        print(f"\nConvAI2: {report['outcome']}, {report['error_count']} bad rows, ratings {report['ratings']}; {stats}")
    assert stats.extracted == report["outcome"]["feedback"]
    assert TrainingDataItem.objects.filter(classifier=speaker).exists()
    assert not set(TrainingDataItem.objects.values_list("label", flat=True)) - {"bot", "human"}
