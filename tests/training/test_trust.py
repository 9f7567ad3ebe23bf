"""Whose word becomes a label: floods are told from people, people who agree count, nobody judges their own word."""

import csv
import os
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from interactions.models import Feedback
from kalimtak.core.errors import Conflict
from kalimtak.core.models import Alert, AuditEvent
from training import services
from training.etl.trust import FloodWatch, Word
from training.models import ItemSource, TrainingDataItem

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
WORDS = ("river", "stone", "cloud", "window", "basket", "candle", "garden", "mirror", "pocket", "bridge", "saddle")
WORDS += ("engine", "copper", "velvet", "anchor")
OLD = NOON - timedelta(days=30)
DATA = Path(os.environ.get("KALIMTAK_BENCH_DATA") or Path(__file__).parents[3] / "shared" / "data")


def phrase(number):
    """A text of its own for each number."""
    own = "abcdefghij"[number % 10] + "klmnopqrst"[number // 10 % 10] + "uvwxyzabcd"[number // 100 % 10]
    return f"{own}ing {own}er un{own} " + " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 4))


def word(number, source="key:spam", label="sad", minutes=0.0, **values):
    defaults = {"channel": "key 1", "fields": (phrase(number),)}
    return Word(("feedback", number), source, at=NOON + timedelta(minutes=minutes), label=label, **defaults | values)


def judged(words, first_heard=None, burst=20):
    watch = FloodWatch(burst)
    for one in words:
        watch.count(one)
    steps = watch.suspicious_steps()
    found = watch.judge([one for one in words if one.step in steps], first_heard or {})
    return {key[1]: suspicion.kind for key, suspicion in found.items()}


# Floods -----------------------------------------------------------------------------------------------------------


def test_one_source_that_names_many_labels_within_an_hour_is_a_burst():
    assert judged([word(number, minutes=number) for number in range(20)]) == dict.fromkeys(range(20), "source_burst")


def test_the_same_many_over_days_are_not():
    assert judged([word(number, minutes=number * 120) for number in range(40)]) == {}


def test_an_hour_counts_across_the_turn_of_the_clock():
    words = [word(number, minutes=20 + number) for number in range(20)]  # half before and half after 12:30
    assert set(judged(words).values()) == {"source_burst"}


def test_people_of_old_who_say_different_things_are_no_flood():
    words = [word(number, f"subject:{number}", ("sad", "glad", "calm")[number % 3]) for number in range(60)]
    assert judged(words, {one.source: OLD for one in words}) == {}


def test_new_sources_with_one_label_are_coordinated_and_others_are_left_alone():
    crowd = [word(number, f"subject:{number}") for number in range(30)]
    others = [word(100 + number, f"subject:old {number}", "glad") for number in range(10)]
    found = judged([*crowd, *others], {one.source: OLD for one in others})
    assert found == dict.fromkeys(range(30), "coordinated")


def test_new_sources_without_a_common_label_are_newcomers():
    words = [word(number, f"subject:{number}", ("sad", "glad", "calm")[number % 3]) for number in range(30)]
    assert set(judged(words).values()) == {"newcomers"}


def test_new_sources_through_different_keys_are_not_one_crowd():
    words = [word(number, f"subject:{number}", channel=f"key {number % 3}") for number in range(30)]
    assert judged(words) == {}


def test_copies_of_one_text_are_found_though_each_is_changed_a_little():
    words = [
        word(
            number, f"subject:{number}", fields=(f"Buy the blue elephant umbrella at our market stall today {number}!",)
        )
        for number in range(30)
    ]
    assert set(judged(words, {one.source: OLD for one in words}).values()) == {"copies"}


@pytest.mark.parametrize("burst", [20, 50])
def test_five_hundred_pasted_texts_with_small_changes_are_copies_whoever_sends_them(burst):
    draw = random.Random(7)
    text = "please tell everybody that the {} umbrella of our market stall keeps the rain away all day, {} says so{}"
    texts = [
        text.format(draw.choice(("blue", "red", "old", "new")), draw.choice(WORDS), draw.choice("!.?"))
        for _ in range(500)
    ]
    honest = [word(1_000 + number, f"subject:h{number}", fields=(plain(number),)) for number in range(200)]
    words = [word(number, f"subject:{number}", fields=(each,)) for number, each in enumerate(texts)]
    found = judged([*words, *honest], {one.source: OLD for one in [*words, *honest]}, burst)
    assert found == dict.fromkeys(range(500), "copies")


def test_copies_are_counted_across_the_turn_of_the_clock_and_not_over_days():
    text = "please buy the blue elephant umbrella at our market stall, number {}"
    near = [word(n, f"s{n}", fields=(text.format(n),), minutes=20 + n) for n in range(20)]
    assert set(judged(near, {one.source: OLD for one in near}).values()) == {"copies"}
    far = [word(n, f"s{n}", fields=(text.format(n),), minutes=120 * n) for n in range(60)]
    assert judged(far, {one.source: OLD for one in far}) == {}


def test_short_texts_are_copies_only_where_they_are_equal():
    same = [word(number, f"s{number}", fields=("thanks a lot!",)) for number in range(20)]
    other = [word(100 + number, f"t{number}", fields=(f"call number {number}",)) for number in range(60)]
    assert judged([*same, *other], {one.source: OLD for one in [*same, *other]}) == dict.fromkeys(range(20), "copies")


SUBJECTS = ("my neighbour", "the teacher", "our doctor", "a stranger", "the driver", "my sister", "the clerk")
DEEDS = ("lost", "painted", "borrowed", "repaired", "forgot", "sold", "carried", "hid", "praised", "broke", "cleaned")
PLACES = ("by the river", "in the rain", "at the station", "near the church", "on the bridge", "behind the barn")


def plain(number):
    """One of 462 different sentences that share their function words."""
    who, did, where = SUBJECTS[number % 7], DEEDS[number % 11], PLACES[number % 6]
    return f"i think that {who} {did} the {WORDS[number % 15]} and the {WORDS[number * 7 % 13]} {where}"


def test_different_sentences_with_the_same_function_words_are_no_copies():
    words = [word(number, f"subject:{number % 200}", fields=(plain(number),)) for number in range(462)]
    assert len({one.fields for one in words}) == 462
    assert judged(words, {one.source: OLD for one in words}, burst=50) == {}


@pytest.mark.parametrize("name", ["emotion", "snips", "trec6", "atis", "sms_spam"])
def test_what_real_people_wrote_within_an_hour_is_no_flood(name):
    """Two hundred sources that were known before, each with fewer words than a burst."""
    path = DATA / name / "test.csv"
    if not path.is_file():
        pytest.skip(f"needs the data set {name} in KALIMTAK_BENCH_DATA")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(stream)][:5_000]
    words = [
        word(number, f"subject:{number % 200}", label, fields=(text,)) for number, (text, label) in enumerate(rows)
    ]
    assert judged(words, {one.source: OLD for one in words}, burst=50) == {}


@pytest.mark.parametrize(
    "text", ["x{0} {1}", "show me all of the flights from {1} to {1} on the {0}th of april please"]
)
@pytest.mark.clock
def test_the_watch_costs_linear_time(text):
    """Four times the words take four times the time, give or take what else runs; quadratic would be sixteen."""

    def seconds(count):
        words = [
            word(number, f"subject:{number % 50}", fields=(text.format(number, phrase(number)),))
            for number in range(count)
        ]
        return min(turn(words), turn(words))

    def turn(words):
        begun = time.process_time()
        judged(words)
        return time.process_time() - begun

    assert seconds(4_000) < 8 * max(seconds(1_000), 0.02)


# In a curation ----------------------------------------------------------------------------------------------------


def trained(classifier):
    """What a model would learn from: text and label of each."""
    return set(TrainingDataItem.objects.filter(classifier=classifier).trainable().values_list("content_hash", "label"))


def limited(classifier, burst=20, **review):
    classifier.policy = {"review": {"burst": burst, **review}}
    classifier.save()


@pytest.mark.django_db
def test_a_burst_lies_in_quarantine_with_an_alert_and_touches_nobody_else(taught_mood, ask, judge):
    limited(taught_mood)
    before = trained(taught_mood)
    shared = ask(phrase(900))
    judge(shared, source="subject:amal", correct_label="calm")
    judge(shared, source="key:spam", correct_label="sad")
    for number in range(30):
        judge(ask(phrase(number)), source="key:spam", correct_label="sad")
    stats = services.examples_curate()
    assert (stats.loaded, stats.approved, stats.for_review, stats.quarantined) == (32, 1, 0, 31)
    assert stats.reasons == {"quarantined: many labels of one source at once": 31}
    assert len(trained(taught_mood) - before) == 1  # Amal's, which the spammer's word on the same text did not disturb
    assert TrainingDataItem.objects.filter(status="quarantined").count() == 31
    assert "31 items for mood are in quarantine" in Alert.objects.get(kind="feedback_flood").message


@pytest.mark.django_db
def test_a_dry_run_tells_of_the_flood_and_writes_nothing(taught_mood, ask, judge):
    limited(taught_mood)
    for number in range(30):
        judge(ask(phrase(number)), correct_label="sad")
    looked = services.examples_curate(dry_run=True).to_dict()
    assert not Alert.objects.exists()
    assert not TrainingDataItem.objects.filter(status="quarantined").exists()
    assert services.examples_curate().to_dict() == looked


@pytest.mark.django_db
def test_what_was_approved_before_the_flood_went_on_is_taken_back(taught_mood, ask, judge, rami):
    limited(taught_mood)
    before = trained(taught_mood)
    for number in range(6):
        judge(ask(phrase(number)), correct_label="sad")
    services.examples_curate()
    approved = TrainingDataItem.objects.filter(source="key:carla", status="approved")
    assert approved.count() == 6
    looked_at = approved.last()
    services.item_review(looked_at, reviewer=rami, verdict="approve")
    for number in range(6, 40):
        judge(ask(phrase(number)), correct_label="sad")
    services.examples_curate()
    assert trained(taught_mood) - before == {(looked_at.content_hash, "sad")}
    assert AuditEvent.objects.filter(action="quarantine.recall").exists()


@pytest.mark.django_db
def test_newcomers_wait_for_a_reviewer_and_are_told(taught_mood, ask, judge):
    limited(taught_mood)
    for number in range(30):
        label = ("sad", "calm")[number % 2]
        judge(ask(phrase(number)), source=f"subject:{number}", correct_label=label)
    stats = services.examples_curate()
    assert (stats.approved, stats.for_review, stats.quarantined) == (0, 30, 0)
    assert not TrainingDataItem.objects.filter(status="quarantined").exists()
    assert "raise policy.review.burst" in Alert.objects.get(kind="feedback_newcomers").message


@pytest.mark.django_db
def test_ratings_are_no_burst(taught_mood, ask, judge):
    limited(taught_mood)
    for number in range(30):
        judge(ask(phrase(number)), rating=5)
    services.examples_curate()
    assert not TrainingDataItem.objects.filter(status="quarantined").exists()


# Quarantine -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quarantined(taught_mood, ask, judge):
    limited(taught_mood)
    for number in range(30):
        judge(ask(phrase(number)), correct_label="sad")
    services.examples_curate()
    return TrainingDataItem.objects.filter(status="quarantined").order_by("pk")


@pytest.mark.django_db
def test_what_is_released_waits_for_review_and_what_is_rejected_is_gone(quarantined, rami):
    first, second = quarantined[:2]
    assert services.quarantine_release(quarantined.filter(pk=first.pk), reviewer=rami) == (1, 0)
    assert services.quarantine_reject(quarantined.filter(pk=second.pk), reviewer=rami) == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, first.reason) == ("review", "Released from quarantine by rami.")
    assert (second.status, second.reason) == ("rejected", "Rejected in quarantine by rami.")
    assert services.item_review(first, reviewer=rami, verdict="approve").status == "approved"
    assert Alert.objects.filter(kind="feedback_flood", closed_at=None).exists()
    services.quarantine_reject(TrainingDataItem.objects.all(), reviewer=rami)
    assert not Alert.objects.filter(kind="feedback_flood", closed_at=None).exists()
    assert TrainingDataItem.objects.filter(status="approved", label="sad", origin="corrected").count() == 1


@pytest.mark.django_db
def test_a_released_item_that_a_live_one_repeats_is_rejected(quarantined, rami, mood):
    item = quarantined[0]
    TrainingDataItem.objects.create(
        classifier=mood, fields=item.fields, label=item.label, status="approved", content_hash=item.content_hash
    )
    assert services.quarantine_release(quarantined.filter(pk=item.pk), reviewer=rami) == (0, 1)
    item.refresh_from_db()
    assert (item.status, item.reason) == ("rejected", "The same text is an item with this label already.")


@pytest.mark.django_db
def test_what_a_person_decided_in_quarantine_stays_so_while_the_flood_goes_on(quarantined, rami, ask, judge):
    released, rejected = list(quarantined[:5]), list(quarantined[5:10])
    services.quarantine_release(quarantined.filter(pk__in=[item.pk for item in released]), reviewer=rami)
    services.quarantine_reject(quarantined.filter(pk__in=[item.pk for item in rejected]), reviewer=rami)
    for number in range(30, 35):
        judge(ask(phrase(number)), correct_label="sad")
    services.examples_curate()
    for item in (*released, *rejected):
        item.refresh_from_db()
    assert {item.status for item in released} == {"review"}
    assert {item.status for item in rejected} == {"rejected"}
    assert quarantined.count() == 25  # those five that came since are held, as before


@pytest.mark.django_db
def test_saying_it_once_more_does_not_bring_it_back_into_quarantine(quarantined, rami, judge):
    released, rejected = quarantined[:2]
    services.quarantine_release(quarantined.filter(pk=released.pk), reviewer=rami)
    services.quarantine_reject(quarantined.filter(pk=rejected.pk), reviewer=rami)
    Feedback.objects.filter(interaction__in=[released.interaction_id, rejected.interaction_id]).update(
        rating=1, updated_at=timezone.now()
    )
    stats = services.examples_curate()
    assert (stats.extracted, stats.duplicates, stats.filtered, stats.loaded) == (2, 1, 1, 0)
    assert quarantined.count() == 28
    released.refresh_from_db()
    assert released.status == "review"


# People who agree -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_as_many_people_as_the_policy_asks_for_make_a_label(mood, ask, judge):
    limited(mood, approve="agree:3")
    for name in ("amal", "bea"):
        judge(ask("a grey day"), source=f"subject:{name}", correct_label="sad")
    assert services.examples_curate().for_review == 1
    item = TrainingDataItem.objects.get()
    assert item.reason == "Waits until enough people say the same, or a reviewer."
    judge(ask("A grey  day"), source="subject:amal", correct_label="sad")  # once more is not another person
    services.examples_curate()
    assert TrainingDataItem.objects.get().status == "review"
    judge(ask("a grey day"), source="subject:carl", correct_label="sad")
    services.examples_curate()
    item.refresh_from_db()
    assert (item.status, item.reason) == ("approved", "3 people said the same.")
    assert ItemSource.objects.count() == 3


@pytest.mark.django_db
def test_people_who_agree_within_one_curation_make_a_label_at_once(mood, ask, judge):
    limited(mood, approve="agree:2")
    for name in ("amal", "bea"):
        judge(ask("a grey day"), source=f"subject:{name}", correct_label="sad")
    assert services.examples_curate().approved == 1


@pytest.mark.django_db
@pytest.mark.parametrize("second", [{"source": "key:carla"}, {"source": "anonymous:b", "trusted": False}])
def test_a_key_or_an_anonymous_address_is_nobody_who_agrees(mood, ask, judge, second):
    limited(mood, approve="agree:2")
    judge(ask("a grey day"), source="subject:amal", correct_label="sad")
    judge(ask("a grey day"), correct_label="sad", **second)
    services.examples_curate()
    assert TrainingDataItem.objects.get().status == "review"


@pytest.mark.django_db
def test_people_do_not_outvote_an_approved_item(mood, ask, judge):
    limited(mood, approve="agree:2")
    from training.etl.duplicates import content_hash

    judge(ask("a grey day"), source="subject:amal", correct_label="sad")
    services.examples_curate()
    TrainingDataItem.objects.create(
        classifier=mood,
        fields={"text": "a grey day"},
        label="calm",
        status="approved",
        content_hash=content_hash(["a grey day"]),
    )
    judge(ask("a grey day"), source="subject:bea", correct_label="sad")
    services.examples_curate()
    assert TrainingDataItem.objects.get(label="sad").status == "review"


@pytest.mark.django_db
def test_a_reviewer_and_a_subject_are_two_people(mood, ask, judge, rami):
    limited(mood, approve="agree:2")
    judge(ask("a grey day"), source="subject:amal", correct_label="sad")
    services.examples_curate()
    item = TrainingDataItem.objects.get()
    assert services.item_review(item, reviewer=rami, verdict="approve").status == "approved"


# One's own word ---------------------------------------------------------------------------------------------------


@pytest.fixture
def own_items(mood, rami, settings):
    """What Rami said: as staff, as a subject under his user name and his address, and as one of several who agree."""
    from interactions.services import pseudonym_of

    settings.KALIMTAK_SUBJECT_KEY = "k" * 32
    rami.email = "rami@example.org"
    rami.is_superuser = True
    rami.save()
    sources = [
        f"user:{rami.pk}",
        f"subject:{pseudonym_of('rami')}",
        f"subject:{pseudonym_of('rami@example.org')}",
        "key:a",
    ]
    items = [
        TrainingDataItem.objects.create(
            classifier=mood,
            fields={"text": f"own {n}"},
            label="sad",
            status="review",
            source=source,
            content_hash=f"{n}",
        )
        for n, source in enumerate(sources)
    ]
    ItemSource.objects.create(item=items[3], source=sources[0])
    return items


@pytest.mark.django_db
@pytest.mark.parametrize("verdict", [{"verdict": "approve"}, {"verdict": "relabel", "label": "glad"}])
def test_no_service_lets_a_reviewer_approve_an_own_item(own_items, rami, verdict):
    for item in own_items:
        with pytest.raises(Conflict) as refused:
            services.item_review(item, reviewer=rami, **verdict)
        assert refused.value.code == "own_item"
    assert services.items_review(TrainingDataItem.objects.all(), reviewer=rami, **verdict) == 0
    assert set(TrainingDataItem.objects.values_list("status", flat=True)) == {"review"}


@pytest.mark.django_db
def test_another_reviewer_may_and_the_own_word_can_be_taken_back(own_items, rami):
    olga = User.objects.create_user("olga")
    assert services.item_review(own_items[0], reviewer=olga, verdict="approve").status == "approved"
    assert services.item_review(own_items[1], reviewer=rami, verdict="reject").status == "rejected"


@pytest.mark.django_db
def test_a_relabel_can_be_corrected_by_who_made_it_and_not_approved_again(mood, rami):
    theirs = TrainingDataItem.objects.create(
        classifier=mood, fields={"text": "x"}, label="sad", status="review", source="key:a", content_hash="x"
    )
    made = services.item_review(theirs, reviewer=rami, verdict="relabel", label="glad")
    assert made.source == f"user:{rami.pk}"
    assert services.item_review(made, reviewer=rami, verdict="relabel", label="calm").status == "approved"
    made.refresh_from_db()
    with pytest.raises(Conflict):
        services.item_review(made, reviewer=rami, verdict="approve")


@pytest.mark.django_db
def test_no_page_lets_a_reviewer_approve_an_own_item(own_items, rami, client):
    client.force_login(rami)
    base = "/admin/training/trainingdataitem/"
    chosen = {"_selected_action": [item.pk for item in own_items]}
    for item in own_items:
        answer = client.post(f"{base}{item.pk}/verdict/", {"verdict": "approve"}, follow=True)
        assert "is your own word" in answer.text
        client.post(f"{base}{item.pk}/verdict/", {"verdict": "relabel", "label": "glad"})
    client.post(base, {"action": "approve_selected", **chosen})
    client.post(f"{base}relabel/", {"label": "glad", **chosen})
    assert set(TrainingDataItem.objects.values_list("status", "label")) == {("review", "sad")}
    assert not {item.pk for item in own_items} & {item.pk for item in services.waiting_for(rami)}


@pytest.mark.django_db
def test_no_command_lets_a_reviewer_approve_an_own_item(own_items, rami, capsys):
    from django.core.management import call_command

    call_command("review", "mood", "--approve-all", "--as", "rami")
    call_command("review", "mood", "--as", "rami")
    assert capsys.readouterr().out.count("Nothing waits for review.") == 2
    assert set(TrainingDataItem.objects.values_list("status", flat=True)) == {"review"}


@pytest.mark.django_db
def test_nobody_releases_an_own_item_from_quarantine(own_items, rami):
    TrainingDataItem.objects.update(status="quarantined")
    assert services.quarantine_release(TrainingDataItem.objects.all(), reviewer=rami) == (0, 0)
    assert services.quarantine_reject(TrainingDataItem.objects.all(), reviewer=rami) == 4


@pytest.mark.django_db
def test_quarantine_is_left_in_the_admin(quarantined, rami, client):
    User.objects.filter(pk=rami.pk).update(is_superuser=True)
    client.force_login(rami)
    base = "/admin/training/trainingdataitem/"
    page = client.get(f"{base}?status__exact=quarantined")
    assert "named 30 labels within an hour" in page.text
    first, second = quarantined[:2]
    answer = client.post(base, {"action": "release_selected", "_selected_action": [first.pk]}, follow=True)
    assert "1 item was released and waits for review." in answer.text
    answer = client.post(base, {"action": "discard_selected", "_selected_action": [second.pk]}, follow=True)
    assert "1 item in quarantine was rejected." in answer.text
    assert quarantined.count() == 28
    third, fourth = quarantined[:2]
    TrainingDataItem.objects.create(
        classifier=third.classifier, fields=third.fields, label="sad", status="review", content_hash=third.content_hash
    )
    chosen = {"action": "release_selected", "_selected_action": [third.pk, fourth.pk]}
    answer = client.post(base, chosen, follow=True)
    assert "1 item was released and waits for review. 1 was rejected: an item says the same already." in answer.text


# Models are no people ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_no_answer_becomes_a_label_without_a_person(mood, ask, judge):
    """Neither what was answered, nor what was written in a chat, however well it was rated."""
    ask("an answer nobody rated")
    chat = ask("tell me a joke", label="glad", kind="chat", source="rule")
    judge(chat, rating=5)
    judge(chat, source="subject:amal", correct_label="sad", correct_response="Not funny.")
    stats = services.examples_curate()
    assert stats.extracted == 0
    assert not TrainingDataItem.objects.exists()


def test_items_are_made_from_what_people_said_or_loaded_and_nowhere_else():
    """Whoever makes an item stands here; none of them reads what a language model wrote."""
    import re
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    makers = {
        path.relative_to(root).as_posix()
        for package in ("inference", "interactions", "kalimtak", "registry", "training")
        for path in (root / package).rglob("*.py")
        if re.search(r"\bTrainingDataItem(?:\.objects\.create)?\((?!models)|\bitems_insert\(", path.read_text("utf-8"))
    }
    assert makers == {
        "training/etl/load.py",  # evidence: feedback and examples, each with the source that gave it,
        "training/services/curation.py",  # as the daily job writes them
        "training/services/audit.py",  # an answer drawn at random, without a label until a reviewer gives one
        "training/services/examples.py",  # an example that a client sent, as a candidate
        "training/services/imports.py",  # a file that staff loaded
        "training/services/review.py",  # a reviewer's relabel
    }
