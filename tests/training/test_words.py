"""The word lists in force: shipped ones, words that staff add, words that they allow."""

import time

import pytest

from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import AuditEvent
from training import services
from training.etl.content import (
    FOLDER,
    ListedWord,
    WordList,
    WordsByLanguage,
    shipped_lines,
    shipped_list,
    shipped_words,
    word_problem,
)
from training.etl.languages import LANGUAGES, language_of
from training.etl.scripts import script_of
from training.models import BlockedWord, TrainingDataItem


@pytest.mark.parametrize(
    "text",
    [
        *(
            "you 4sshole",
            "Sh!t",
            "f.u.c.k you",
            "F*ck",
            "fuuuuck",
            "f\u200buck",
            "fu\u0308ck",
            "fuck!you",
            "ｆｕｃｋ",
            "b1tch",
        ),
        *("Scheiße", "scheiss egal", "cabron", "والوغد", "الحَقِير", "وغـــد", "сука", "ѕһіт"),
    ],
)
def test_disguises_hide_nothing(text):
    assert shipped_words().first_in(text)


@pytest.mark.parametrize(
    "text",
    [
        *("as good as it gets", "I got 455 of 1 2 3", "a pic of the sleet", "well!done", "the hit list ***", "pushit"),
        *("fickle people in Scunthorpe", "assess the class", "en retard", "but *ss"),
    ],
)
def test_words_of_other_meaning_stay(text):
    assert shipped_words().first_in(text) == ""


def test_an_allowed_word_goes_before_a_stem():
    words = WordList(["grr*", "darn"], ["grrreat", "DÁRN"])
    assert words.first_in("grrr") == "grr*"
    assert words.first_in("that is grrreat, darn") == ""


ENGLISH, GERMAN, ARABIC = "{} the one and you", "{} der und ich", "{} في البيت"


def test_a_word_of_one_language_holds_in_its_texts_and_where_none_can_be_told():
    words = WordsByLanguage(shipped_lines(), [ListedWord("die", True, "en"), ListedWord("غبي", True, "ar")])
    assert words.first_in(ENGLISH.format("d1e")) == "die"
    assert words.first_in(GERMAN.format("die")) == ""
    assert words.first_in("die") == "die"
    assert words.first_in(ARABIC.format("غـــبي")) == "غبي"
    assert words.first_in(GERMAN.format("غبي")) == ""
    assert words.first_in(GERMAN.format("shit")) == "shit"  # the shipped lists hold everywhere


def test_what_is_said_for_a_language_goes_before_what_is_said_for_all():
    words = WordsByLanguage(
        ["shit"],
        [
            ListedWord("grr*", True),
            ListedWord("grrreat", False, "de"),
            ListedWord("darn", False),
            ListedWord("darn", True, "en"),
            ListedWord("shit", False, "de"),
        ],
    )
    assert words.first_in(GERMAN.format("grrreat")) == ""
    assert words.first_in(GERMAN.format("grr")) == "grr*"
    assert words.first_in(ENGLISH.format("grrreat")) == "grr*"
    assert words.first_in(ENGLISH.format("darn")) == "darn"
    assert words.first_in(GERMAN.format("darn")) == ""
    assert words.first_in("darn") == "darn"
    assert words.first_in(GERMAN.format("shit")) == ""
    assert words.first_in(ENGLISH.format("shit")) == "shit"


def test_every_language_that_can_be_chosen_has_a_list():
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(BlockedWord.Language.values) == set(LANGUAGES)
    assert set(shipped_list("de")) < set(shipped_lines())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the dog and the cat", "English"),
        ("ik weet het niet maar goed", "Dutch"),
        ("non è il mio", "Italian"),
        ("não sei o que é", "Portuguese"),
        ("no sé por qué el y para", "Spanish"),
        ("bu çok güzel ama", "Turkish"),
        ("una cosa", ""),
        ("the it der die", ""),
        ("ما هذا", "Arabic"),
        ("что это", ""),
    ],
)
def test_a_language_is_told_by_script_or_function_words(text, language):
    assert language_of(text.split(), script_of(text)) == language


@pytest.mark.parametrize("word", ["two words", "*", "a*b", "", "!", "x"])
def test_what_is_no_word_cannot_be_listed(word):
    assert word_problem(word)


@pytest.mark.clock
def test_hostile_text_costs_linear_time():
    texts = ["f " * 100_000, "@" * 200_000, "a*" * 100_000, "f.u.c." * 40_000, "x!" * 100_000, "و" * 200_000]
    begun = time.process_time()
    for text in texts:
        shipped_words().first_in(text)
    assert time.process_time() - begun < 5  # 20 ms for 10,000 characters would be 2.4


@pytest.mark.django_db
def test_a_word_of_our_own_is_blocked_from_the_next_curation(mood, ask, judge):
    services.words_add(["Drat", "dang*"], effect="block", classifier=mood, actor="tala")
    judge(ask("well dr4t it all"), rating=5)
    judge(ask("the d.a.n.g thing"), correct_label="sad")
    assert services.examples_curate().to_dict()["reasons"] == {"blocked word": 2}
    assert TrainingDataItem.objects.get(label="sad").status == "review"
    assert AuditEvent.objects.filter(actor="tala", action="words.block", target="mood").exists()


@pytest.mark.django_db
def test_a_word_of_a_language_is_blocked_in_its_texts_and_named(mood, ask, judge):
    services.words_add(["die"], effect="block", classifier=None, language="en", actor="tala")
    judge(ask("die Sonne und der Mond, ich bin froh"), rating=5)
    judge(ask("you and the others die"), correct_label="sad")
    assert services.examples_curate().approved == 1
    item = TrainingDataItem.objects.get(status="review")
    assert item.reason.startswith("It holds the blocked word 'die'.")
    with pytest.raises(InvalidInput, match="Use one of"):
        services.words_add(["die"], effect="block", classifier=None, language="xx", actor="tala")
    assert services.words_add(["die"], effect="block", classifier=None, actor="tala") == 1
    assert services.words_add(["die"], effect="block", classifier=None, language="en", actor="tala") == 0


@pytest.mark.django_db
def test_an_allowed_word_is_learnt_and_blocked_again_when_removed(mood, ask, judge):
    services.words_add(["bastard"], effect="allow", classifier=None, actor="tala")
    judge(ask("the bastard of Orleans"), rating=5)
    assert services.examples_curate().approved == 1
    services.word_remove(BlockedWord.objects.get(), actor="tala")
    judge(ask("another bastard"), rating=5)
    assert services.examples_curate().filtered == 1


@pytest.mark.django_db
def test_a_list_is_added_whole_or_not_at_all(mood):
    with pytest.raises(InvalidInput, match="two words"):
        services.words_add(["fine", "two words"], effect="block", classifier=None, actor="tala")
    assert not BlockedWord.objects.exists()
    assert services.words_add(["fine", "FINE", " "], effect="block", classifier=None, actor="tala") == 1
    assert services.words_add(["fine"], effect="block", classifier=None, actor="tala") == 0
    assert services.words_add(["fine"], effect="allow", classifier=None, actor="rami") == 1
    assert services.words_add(["fine"], effect="block", classifier=mood, actor="tala") == 1
    with pytest.raises(InvalidInput):
        services.words_add(["  "], effect="block", classifier=None, actor="tala")
    with pytest.raises(InvalidInput):
        services.words_add(["x" * 61], effect="block", classifier=None, actor="tala")
