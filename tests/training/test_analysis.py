"""The report says what a file is and why one thinks so."""

import json

import pytest

from training.analysis import LabelRules, analyse
from training.columns import choose_columns
from training.importers import ImportRefused, chunks, open_source


@pytest.fixture
def report(tmp_path):
    def report(name, content, *, input_fields=("text",), rules=None, **asked):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        rules = rules or LabelRules()
        source = open_source(path, name)
        columns = choose_columns(
            source.columns,
            source.sample,
            input_fields=input_fields,
            label_field="label",
            labels=rules.labels,
            **asked,
        )
        return analyse(source, columns, rules, chunks(source), lambda rows: None).report()

    return report


def test_the_report_counts_labels_lengths_duplicates_and_conflicts(report):
    found = report("a.csv", "text,label\nHello  you,a\nhello you,a\nhello you,b\nمرحبا بكم,b\n ,a\nlast,\n")
    assert found["labels"] == {"a": 2, "b": 2}
    assert (found["rows"], found["good"], found["duplicates"], found["conflicts"], found["empty"]) == (6, 4, 1, 1, 1)
    assert found["scripts"] == {"Latin": 3, "Arabic": 1}
    assert found["words"]["p50"] == 2
    assert found["errors"] == [{"line": 6, "reason": "An empty text."}, {"line": 7, "reason": "No label."}]
    assert found["task"] == "text-classification"
    assert json.loads(json.dumps(found)) == found


def test_metadata_is_used_as_it_stands(report):
    metadata = {"modalities": ["text", "image"], "task": "visual-question-answering"}
    found = report("a.json", json.dumps({"metadata": metadata, "data": [{"text": "a", "label": "x"}]}))
    assert found["modalities"] == ["text", "image"]
    assert found["task"] == "visual-question-answering"
    assert found["decided_by"] == "metadata"


def test_without_metadata_heuristics_decide_and_say_why(report):
    rows = "".join(f"{'good' if n % 2 else 'bad'},some longer words number {n}\n" for n in range(20))
    found = report("a.csv", f"mark,remark\n{rows}")
    assert found["fields"] == {"inputs": ["remark"], "label": "mark", "split": None, "status": None}
    assert found["decided_by"] == "heuristics"
    assert any("'remark' is taken for text: its texts are the longest" in sentence for sentence in found["why"])
    assert any("'mark' is taken for the label" in sentence for sentence in found["why"])


def test_what_the_caller_names_counts_first(report):
    found = report("a.csv", "text,label,other,mark\na,b,c,d\n", asked_inputs=["other"], asked_label="mark")
    assert found["fields"]["inputs"] == ["other"]
    assert found["fields"]["label"] == "mark"


def test_a_pair_needs_both_texts(report):
    found = report("a.csv", "question,context,label\na,b,x\n", input_fields=("question", "context"))
    assert found["fields"]["inputs"] == ["question", "context"]
    with pytest.raises(ImportRefused, match="name the text columns"):
        report("b.csv", "question,label\na,x\n", input_fields=("question", "context"))


def test_labels_are_mapped_and_unknown_ones_named(report):
    rules = LabelRules(("joy", "fear"), {"0": "joy", "1": "fear"})
    found = report("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": "Joy"}\n', rules=rules)
    assert found["labels"] == {"joy": 1}
    assert found["unknown_labels"] == {"Joy": 1}
    assert found["errors"][0]["reason"] == "Unknown label 'Joy'; did you mean 'joy'?"


def test_a_split_column_is_found(report):
    found = report("a.csv", "text,label,split\na,x,train\nb,y,dev\nc,x,test\n")
    assert found["splits"] == {"train": 1, "valid": 1, "test": 1}


def test_a_column_of_pictures_is_told_from_text(report):
    assert report("a.csv", "text,label\na.png,x\nb.jpg,y\n")["modalities"] == ["image"]
