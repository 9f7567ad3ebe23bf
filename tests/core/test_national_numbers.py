"""National numbers are known by form and check digits, those that any number could be only by a word beside them."""

import pytest

from kalimtak.core import pii
from kalimtak.core.national_numbers import RULES, national_numbers

# Examples that authorities or encyclopaedias print, or made to satisfy the check digits.
KNOWN_ANYWHERE = {
    "us ssn": "078-05-1120",
    "uk nino": "AB 12 34 56 C",
    "fr nir": "2 95 10 99 126 111 93",
    "it fiscal": "RCCMNL83S18D969H",
    "es dni": "54362315K",
    "be rrn": "85.07.30-033.28",
    "se personal": "811218-9876",
    "no birth": "15108695088",
    "fi personal": "131052-308T",
    "pl pesel": "44051401359",
    "cz birth": "710319/2745",
    "ro cnp": "1630615123457",
    "tr kimlik": "17291716060",
    "br cpf": "390.533.447-05",
    "mx curp": "BOXW310820HNERXN09",
    "cl rut": "12.531.909-2",
    "in aadhaar": "2341 2341 2346",
    "cn resident": "11010519491231002X",
    "kr resident": "971013-2019902",
    "za identity": "7503305044089",
    "eg national": "29001011234567",
    "ae emirates": "784-1979-1234567-1",
    "kw civil": "290010112346",
}
KNOWN_BY_A_WORD = {
    "us ssn, plain": ("social security number is", "078051120"),
    "uk nhs": ("NHS", "943 476 5870"),
    "de tax": ("Meine Steuer-ID:", "36 574 261 809"),
    "pt nif": ("o meu contribuinte é", "123456789"),
    "nl bsn": ("BSN", "111222333"),
    "be rrn, plain": ("rijksregister", "85073003328"),
    "se personal, plain": ("personnummer", "8112189876"),
    "dk cpr": ("CPR", "211062-5629"),
    "no birth, day below 10": ("fødselsnummer", "01010750160"),
    "pl pesel, year below 10": ("PESEL", "02070803628"),
    "bg egn": ("ЕГН", "7523169263"),
    "br cpf, plain": ("CPF", "39053344705"),
    "in aadhaar, plain": ("aadhaar", "234123412346"),
    "in pan": ("PAN", "ACUPA7085R"),
    "jp my number": ("マイナンバー", "1234 5678 9018"),
    "il identity": ("ת.ז", "039337423"),
    "ca sin": ("SIN", "123-456-782"),
    "sa national": ("رقم الهوية", "1004421368"),
}
# Where the check is over digits, the same number with one of them changed.
CHECKED = (
    *(
        "fr nir",
        "it fiscal",
        "es dni",
        "be rrn",
        "se personal",
        "no birth",
        "fi personal",
        "pl pesel",
        "cz birth",
        "ro cnp",
    ),
    *("tr kimlik", "br cpf", "cl rut", "in aadhaar", "cn resident", "za identity", "ae emirates", "kw civil"),
)


def test_every_rule_has_an_example():
    assert {rule.name for rule in RULES} == KNOWN_ANYWHERE.keys() | KNOWN_BY_A_WORD.keys()
    assert {rule.name for rule in RULES if rule.needs_word} == set(KNOWN_BY_A_WORD)


@pytest.mark.parametrize(("name", "number"), KNOWN_ANYWHERE.items())
def test_a_telling_number_is_known_anywhere(name, number):
    assert pii.redact(f"it is {number}, thanks").text == "it is <NATIONAL_ID>, thanks"


@pytest.mark.parametrize(("name", "given"), KNOWN_BY_A_WORD.items())
def test_a_plain_number_is_known_by_a_word_beside_it(name, given):
    word, number = given
    text = f"{word} {number}."
    assert (text.index(number), len(text) - 1) in set(national_numbers(text))
    assert not set(national_numbers(f"order {number} of us"))


@pytest.mark.parametrize("name", CHECKED)
def test_a_wrong_check_digit_is_no_number(name):
    number = KNOWN_ANYWHERE[name]
    place = max(index for index, character in enumerate(number[:-1]) if character.isdigit())
    changed = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
    assert not set(national_numbers(f"it is {changed}, thanks"))


@pytest.mark.parametrize(
    "text", ["1700000000000 ms", "20240115 and 2024011512", "build 12345678901234567890", "00000000000"]
)
def test_timestamps_and_rubbish_are_no_numbers(text):
    assert not set(national_numbers(text))
