"""Pages around curation: the words that staff block or allow, and what a set was made of before and after."""

from kalimtak.core.models import Job
from tests.admin.conftest import HOSTILE
from training.models import BlockedWord


def test_staff_edit_the_lists_in_the_admin(world, sign_in):
    tala = sign_in("tala")
    answer = tala.post("/admin/training/blockedword/words/", {"words": "flip\nفلان*", "effect": "block"}, follow=True)
    assert "2 words were listed." in answer.text
    assert "فلان*" in answer.text
    refused = tala.post("/admin/training/blockedword/words/", {"words": "<script>alert(1)</script>", "effect": "block"})
    assert refused.status_code == 200
    assert "<script>alert(1)" not in refused.text
    row = BlockedWord.objects.get(word="flip")
    answer = tala.post(f"/admin/training/blockedword/{row.pk}/remove/", follow=True)
    assert "The word was removed." in answer.text
    assert sign_in("rami").post("/admin/training/blockedword/words/", {"words": "x"}).status_code == 403


def test_a_word_may_hold_for_one_language(world, sign_in):
    tala = sign_in("tala")
    tala.post("/admin/training/blockedword/words/", {"words": "die", "effect": "block", "language": "en"})
    tala.post("/admin/training/blockedword/words/", {"words": "flip", "effect": "block", "language": ""})
    assert BlockedWord.objects.get(word="die").language == "en"
    german = tala.get("/admin/training/blockedword/?language__exact=de")
    english = tala.get("/admin/training/blockedword/?language__exact=en")
    assert [row.word for row in english.context["cl"].result_list] == ["die"]
    assert not german.context["cl"].result_list
    assert "Scheiß" in german.text or "scheiß" in german.text
    assert "bullshit" not in german.text


def test_shipped_words_are_shown_folded_with_a_link_that_allows_one(world, sign_in):
    page = sign_in("tala").get("/admin/training/blockedword/").text
    assert page.count('<details class="k-details"><summary>') == 10
    link = "/admin/training/blockedword/words/?effect=allow&amp;words=bitch%2A"
    assert link in page
    form = sign_in("tala").get(link.replace("&amp;", "&")).text
    assert "bitch*</textarea>" in form
    assert '<option value="allow" selected>' in form
    found = sign_in("tala").get("/admin/training/blockedword/?q=bastard").text
    assert '<details class="k-details" open>' in found
    assert "bitch*" not in found
    sign_in("tala").post("/admin/training/blockedword/words/", {"words": "bitch*", "effect": "allow"})
    assert link not in sign_in("tala").get("/admin/training/blockedword/").text
    assert "?effect=allow" not in sign_in("vera").get("/admin/training/blockedword/").text
    hostile = sign_in("tala").get(
        "/admin/training/blockedword/words/", {"words": "<script>alert(1)\x00", "effect": "x"}
    )
    assert hostile.status_code == 200
    assert "<script>alert(1)" not in hostile.text


def test_a_curation_tells_the_shares_before_and_after(world, sign_in):
    shares = {
        "emotion": {"label": {HOSTILE: [0.5, 0.4]}, "source": {"key:abc": [0.1, 0.2]}, "domain": {"": [1.0, 1.0]}}
    }
    job = Job.objects.create(kind="curate", key="curate:1", state="succeeded", result={"loaded": 2, "shares": shares})
    page = sign_in("vera").get(f"/admin/core/job/{job.pk}/change/").text
    assert "Shares of the set" in page
    assert "50.0%" in page
    assert "40.0%" in page
    assert "not told" in page
    assert "&lt;script&gt;alert" in page
    assert "&#x27;before&#x27;" not in page


def test_the_curate_command_prints_the_shares(world, capsys):
    from django.core.management import call_command

    world.items[0].delete()  # which says what the waiting correction says
    call_command("curate", "--classifier", "emotion", "--dry-run")
    printed = capsys.readouterr().out
    assert "label\tjoy\t25.0%\t24.4%" in printed  # one more text that is not joy
