"""`manage.py predict`: texts, pairs, files and a conversation."""

import csv
import io
import json

import pytest
from django.core.management import CommandError, call_command

from interactions.models import UserInteraction


def predict(*words, **options):
    out, err = io.StringIO(), io.StringIO()
    call_command("predict", *words, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def test_a_text_gets_its_label_in_percent_and_a_bar_per_score(emotion):
    out, _ = predict("emotion", "pure joy")
    assert out.startswith("joy (90.00%)\n")
    assert "sadness" in out and "█" in out
    assert UserInteraction.objects.count() == 1


def test_the_first_word_may_be_left_out_for_the_default_classifier(emotion):
    out, err = predict("anger", "sadness")
    assert "default classifier, emotion" in err
    assert [line.split()[0] for line in out.splitlines() if "(" in line] == ["anger", "sadness"]


def test_the_labels_emoji_and_the_flags_are_shown(emotion, serving):
    emotion.label_config = {"descriptions": {"joy": "Happiness 😊"}}
    emotion.save()
    assert predict("emotion", "perhaps joy")[0].startswith("😊 joy (40.00%)  [low_confidence]")


def test_a_question_with_its_context(clarity):
    out, _ = predict("clarity", question="Will you?", context="Ambivalent")
    assert out.startswith("Ambivalent (")
    with pytest.raises(CommandError, match="together"):
        predict("clarity", question="Will you?")


def test_a_conversation_goes_on_after_a_slip_and_ends_on_quit(emotion, monkeypatch):
    lines = iter(["what a joy", "   ", "anger", "quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    out, _ = predict("emotion")
    assert "joy (90.00%)" in out and "blank" in out and "anger (90.00%)" in out


def test_a_conversation_ends_with_the_input(emotion, monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert "listening" in predict("emotion")[0]


def test_a_csv_is_answered_row_by_row(emotion, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,text\n1,"joy, pure"\n2,\n3,=anger()\n', encoding="utf-8")
    _, err = predict("emotion", file=source, output=target)
    rows = list(csv.DictReader(target.open(newline="")))
    assert [(row["id"], row["label"]) for row in rows] == [("1", "joy"), ("2", ""), ("3", "anger")]
    assert "blank" in rows[1]["error"]
    assert rows[2]["text"] == "'=anger()"
    assert "3 rows" in err and "1 of them refused" in err
    assert not UserInteraction.objects.exists()


def test_jsonl_goes_to_the_terminal_with_all_scores(emotion, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": f"anger {number}"}) for number in range(150)), encoding="utf-8")
    out, _ = predict("emotion", file=source)
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 150
    assert rows[0]["label"] == "anger" and set(rows[0]["scores"]) == {"joy", "sadness", "anger"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.csv", b"id,words\n1,x\n", "needs the columns text"),
        ("in.csv", b"text\n\xff\xfe\n", "not UTF-8"),
        ("in.jsonl", b'{"text": "x"}\n{', "Line 2"),
        ("in.jsonl", b"[1]\n", "Line 1"),
        ("in.xlsx", b"PK", "ends in"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_no_output(emotion, tmp_path, name, content, reason):
    source, target = tmp_path / name, tmp_path / "out.csv"
    source.write_bytes(content)
    with pytest.raises(CommandError, match=reason):
        predict("emotion", file=source, output=target)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


def test_an_output_that_cannot_be_written_is_named(emotion, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "nowhere" / "out.csv"
    source.write_text("text\njoy\n")
    with pytest.raises(CommandError, match=r"out\.csv\.part: No such file or directory\.$"):
        predict("emotion", file=source, output=target)


def test_a_file_is_not_overwritten_by_its_own_answers(emotion, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("text\njoy\n")
    with pytest.raises(CommandError, match="overwrite"):
        predict("emotion", file=source, output=source)
    assert source.read_text() == "text\njoy\n"


def test_a_classifier_without_version_or_data_says_how_to_get_some(serving, make_classifier):
    make_classifier("fresh")
    with pytest.raises(CommandError, match="import_dataset"):
        predict("fresh", "hello")


def test_a_conversation_without_a_version_trains_on_the_sample_set_and_goes_on(
    serving, make_classifier, monkeypatch, settings, tmp_path
):
    from kalimtak import demo
    from kalimtak.core import jobs
    from training.samples import CLASSIFIERS

    settings.KALIMTAK_VAR = tmp_path / "var"
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    monkeypatch.setitem(demo.ROWS, "classic", 300)
    lines = iter(["Where is my parcel?", "quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    intent = make_classifier("intent", labels=list(CLASSIFIERS["intent"].labels))
    out, err = predict("intent")
    assert "intent has no version yet, so one is trained now." in err
    assert "so the built-in sample set is loaded first." in err
    assert "Deployed to production." in err
    assert "intent/1 is listening." in out and "%" in out.partition("listening")[2]
    answer = UserInteraction.objects.get()
    assert (answer.version.ref, answer.fields) == ("intent/1", {"text": "Where is my parcel?"})
    assert intent.versions.get().number == 1
