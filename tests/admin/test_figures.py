"""What a version's page says about its figures beside the live version's."""

import re

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


def test_the_page_of_a_run_draws_its_curves_and_tells_them_epoch_by_epoch(world, sign_in):
    from django.urls import reverse

    page = sign_in("vera").get(reverse("admin:training_trainingrun_change", args=[world.run.pk])).text
    charts = dict(re.findall(r'<svg [^>]*aria-label="([^"]+)"[^>]*>(.*?)</svg>', page, re.DOTALL))
    assert list(charts) == ["Loss", "Validation scores", "Learning rate", "Speed"]
    curves = {
        title: [len(points.split()) for points in re.findall(r'<polyline points="([^"]+)"', chart)]
        for title, chart in charts.items()
    }
    assert curves == {"Loss": [30, 3], "Validation scores": [3, 3], "Learning rate": [30], "Speed": [30]}
    loss = [float(point.split(",")[1]) for point in re.search('points="([^"]+)"', charts["Loss"])[1].split()]
    assert loss == sorted(loss), "it falls, and SVG counts downwards"
    assert "best</title>" not in charts["Loss"] and "best 0.900</title>" in charts["Validation scores"]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert "training <b>0.033</b>" in captions[0] and "validation <b>0.500</b>" in captions[0]
    rows = re.findall(r'<tr><th scope="row" class="k-number">(\d+)</th>(.*?)</tr>', page, re.DOTALL)
    told = {epoch: re.findall(r"<td[^>]*>(.*?)</td>", cells) for epoch, cells in rows}
    assert list(told) == ["1", "2", "3"]
    assert told["3"][:4] == ["30", "0.0333", "0.5000", "0.9000"]
    assert [epoch for epoch, cells in told.items() if "best" in cells[4]] == ["2"]
    assert told["2"][4].endswith("0.9000")
    assert told["1"][6] == "133"


def test_a_run_without_figures_says_so(world, sign_in):
    from django.urls import reverse

    world.run.history = []
    world.run.save()
    page = sign_in("vera").get(reverse("admin:training_trainingrun_change", args=[world.run.pk])).text
    assert "This run reported no figures." in page
    assert "<svg viewBox" not in page


def test_a_run_shows_the_columns_that_its_family_reports():
    from training.admin.runs import epoch_table

    classic = epoch_table([{"step": 0, "epoch": 1.0, "eval_loss": 0.5, "eval_accuracy": 0.9, "eval_macro_f1": 0.8}])
    assert [str(title) for title in classic["titles"]] == ["Validation loss", "Accuracy", "Macro-F1"]
    assert [cells for _row, cells in classic["rows"]] == [[("0.5000", False), ("0.9000", False), ("0.8000", False)]]
    judged = [{"step": step, "epoch": step, "loss": 1.0, "eval_macro_f1": step / 10} for step in (1, 2)]
    tuned = epoch_table([*judged, {"step": 3, "epoch": 3, "eval_macro_f1": 0.1}])
    assert [str(title) for title in tuned["titles"]] == ["Training loss", "Macro-F1"]
    assert [cells[1] for _row, cells in tuned["rows"]] == [("0.1000", False), ("0.2000", True), ("0.1000", False)]
    assert tuned["rows"][2][1][0] == ("–", False)
    assert epoch_table([]) == {"titles": [], "rows": []}
