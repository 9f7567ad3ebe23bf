"""Texts with several labels in the browser: the desk's boxes, an interaction, the playground."""

import pytest

from tests.admin.test_multi_label import asked, items, topics  # noqa: F401  (fixtures)
from tests.browser.visitor import DESK, PHONE
from training.models import TrainingDataItem

pytestmark = pytest.mark.own_servers  # or rather none: what is drawn does not depend on the database


@pytest.mark.parametrize(
    "look", [{"viewport": DESK}, {"viewport": PHONE, "color_scheme": "dark"}], ids=["desk", "phone"]
)
def test_rami_ticks_what_is_right_and_gives_it(office, items, tmp_path, look):  # noqa: F811
    rami = office("rami", **look)
    page = rami.open(f"/admin/training/trainingdataitem/{items[0].pk}/review/")
    page.screenshot(path=tmp_path / "desk.png", full_page=True)
    boxes = page.get_by_role("checkbox")
    assert [box.is_checked() for box in boxes.all()] == [True, False, True]
    page.keyboard.press("2")
    page.keyboard.press("3")
    assert [box.is_checked() for box in boxes.all()] == [True, True, False]
    page.keyboard.press("g")
    page.wait_for_url(f"**/{items[1].pk}/review/")
    page.get_by_text("Relabelled.").wait_for()
    new = TrainingDataItem.objects.get(content_hash=items[0].content_hash, status="approved")
    assert new.label == "money|politics"
    page.get_by_role("button", name="Give these labels").click()  # none is ticked, which is what it has
    page.wait_for_url(f"**/{items[2].pk}/review/")
    page.get_by_text("Approved.").wait_for()
    items[1].refresh_from_db()
    assert items[1].status == "approved"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_with_several_labels_are_accessible(office, asked, items, scheme):  # noqa: F811
    olga = office("olga", color_scheme=scheme)
    olga.open(f"/admin/interactions/userinteraction/{asked.pk}/change/")
    olga.open("/admin/training/trainingdataitem/")
    olga.open(f"/admin/registry/classifier/{asked.classifier.pk}/change/")
