"""What a version's page says about its figures beside the live version's."""

import pytest

SCORES = {
    "accuracy": (0.8, 0.9),
    "macro_f1": (0.8, 0.7),
    "log_loss": (0.4, 0.3),
    "ece": (0.01, 0.05),
    "brier": (0.2, None),
}


@pytest.fixture
def rows():
    from registry.admin.figures import comparison_rows
    from registry.metrics import Interval
    from registry.services import Comparison

    def rows(digest="d" * 64):
        sure, unsure = Interval(0.1, 0.02, 0.18), Interval(-0.1, -0.3, 0.1)
        comparison = Comparison(
            a="emotion/1",
            b="emotion/2",
            data_digest=digest,
            rows=100,
            metrics=SCORES,
            f1_per_label={"joy": (0.8, 0.802), "anger": (0.9, 0.8)},
            differences={"accuracy": sure, "macro_f1": unsure} if digest else {},
        )
        return {str(row["title"]): row for row in comparison_rows(comparison)}

    return rows


def test_a_difference_is_coloured_only_where_it_says_something(rows):
    tones = {title: row["tone"] for title, row in rows().items()}
    assert tones == {
        "accuracy": "k-gain",
        "macro-F1": "",  # its interval holds 0
        "log loss": "k-gain",  # less is better
        "calibration error": "k-loss",
        "Brier score": "",  # one of the two is unknown
        "F1 joy": "",  # a fifth of a point
        "F1 anger": "k-loss",
    }


def test_differences_are_points_with_their_sign(rows):
    found = rows()
    assert found["accuracy"]["difference"] == "+10.0 (+2.0 … +18.0)"
    assert found["log loss"]["difference"] == "−0.100"
    assert found["F1 anger"]["difference"] == "−10.0"
    assert found["Brier score"]["difference"] == ""


def test_only_shares_of_which_more_is_better_are_drawn(rows):
    drawn = {title for title, row in rows().items() if "bars" in row}
    assert drawn == {"accuracy", "macro-F1", "F1 joy", "F1 anger"}


def test_figures_from_different_texts_have_no_difference(rows):
    assert {row["difference"] + row["tone"] for row in rows(digest=None).values()} == {""}


def test_several_labels_are_shown_by_what_was_right_missed_and_wrong():
    import numpy as np

    from registry.admin.figures import confusion_rows, figures, outcome_rows
    from registry.metrics import score_sets

    given = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.1, 0.1]])
    scores = score_sets(["money", "sport"], [["money"], ["money"], ["money", "sport"], []], given).to_dict()
    assert outcome_rows(scores) == [
        {"label": "money", "right": 2, "missed": 1, "wrong": 0, "share": "0.6667"},
        {"label": "sport", "right": 1, "missed": 0, "wrong": 1, "share": "0.5000"},
    ]
    assert confusion_rows(scores) == []
    shown = {str(row["title"]): row["value"] for row in figures(scores)}
    assert (shown["exact match"], "micro-F1" in shown, "accuracy" in shown) == ("50.0 %", True, False)
