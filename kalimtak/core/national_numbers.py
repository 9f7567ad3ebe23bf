"""National identity, insurance and tax numbers: written forms, and the check digits that tell them from other numbers.

Pure. A number whose form and check digits say enough is known anywhere; one that any number could be (US, Dutch,
Portuguese …) only beside a word that speaks of such numbers, in the languages of the countries concerned and in Arabic.
The rules follow the issuing authorities as Wikipedia's "National identification number" and its articles by country
give them; `tests/core/test_national_numbers.py` holds an example of each.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .words import Words

Check = Callable[[str], bool]

# Words that speak of such numbers. Short ones count as capitals only: "sin" and "pan" are English words.
_NUMBER_OF = r"(?: card)?[ .:#-]{1,2}(?:n[or]\b|num|is\b|\d)"
_WORDS = re.compile(
    r"(?<![^\W\d_])(?:(?i:"
    r"social (?:security|insurance)|national (?:id|insurance|number)|identity (?:card|number)|tax (?:id|number|file)"
    rf"|taxpayer|(?:id|personal|citizen|insurance|licen[cs]e){_NUMBER_OF}|passport|aadhaar|iqama"
    r"|(?:personal)?ausweis|reisepass|steuer-?(?:id|nummer|identifikationsnummer)|sozialversicherungs?-?nummer"
    r"|(?:carte|num[ée]ro) (?:d.identité|de sécurité sociale|nationale?)|passeport|pasaporte|c[ée]dula"
    r"|seguridad social|codice fiscale|passaporto|contribuinte|cart[ãa]o de cidad[ãa]o|burgerservicenummer|paspoort"
    r"|rijksregister|person(?:al)?(?:nummer|nr)|f[øo]dselsnummer|henkilötunnus|dow[óo]d|rodné číslo|kimlik"
    r"|паспорт|снилс|инн|マイナンバー|身份证|身分證|주민등록|תעודת זהות"
    r"|(?:ال)?رقم (?:ال)?(?:قومي|وطني|مدني)|(?:ال)?(?:هوي[ةه]|[إا]قام[ةه]|بطاق[ةه]|جواز))"
    r"|SSN|NINO|NHS|TIN|NIN|NIF|NIE|DNI|CPF|BSN|CPR|CNP|EGN|ЕГН|PESEL|CURP|PAN|SIN|TFN|NIR|RRN|IdNr|ת\.?[\"״]?ז)"
    r"(?![^\W\d_])"
)
_DOCUMENT_WORDS = re.compile(
    r"(?i:passport|reisepass|ausweis|passeport|pasaporte|passaporto|paspoort|паспорт|national (?:id|number)"
    r"|identity (?:card|number)|جواز|هوي[ةه]|[إا]قام[ةه]|بطاق[ةه]|قومي|وطني|护照|身份证)"
)


# Check digits -----------------------------------------------------------------------------------------------------


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits a multiple of ten."""
    doubled = (int(digit) * (2 if index % 2 else 1) for index, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def mod_97(iban: str) -> int:
    """ISO 7064 MOD 97-10 of a number whose first four characters go to its end, letters counting from A = 10."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _is_date(year: str, month: str, day: str) -> bool:
    """Whether these digits can be a day; a year of two digits may be of any century."""
    return len(year) in (2, 4) and 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _ymd(number: str) -> bool:
    return _is_date(number[:2], number[2:4], number[4:6])


def _dmy(number: str) -> bool:
    return _is_date(number[4:6], number[2:4], number[:2])


def _varied(digits: str) -> bool:
    """Not one digit again and again, which satisfies most check digits and is nobody's number."""
    return len(set(digits)) > 2


def _us_ssn(number: str) -> bool:
    area = number[:3]
    return area not in ("000", "666") and area < "900" and number[3:5] != "00" and number[5:] != "0000"


def _uk_nhs(number: str) -> bool:
    rest = 11 - _weighted(number, range(10, 1, -1)) % 11
    return rest != 10 and rest % 11 == int(number[9])


def _de_tax(number: str) -> bool:
    """ISO 7064 MOD 11,10."""
    product = 10
    for digit in number[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return number[0] != "0" and (11 - product) % 10 == int(number[10])


def _fr_nir(number: str) -> bool:
    corsica = number.replace("2A", "19").replace("2B", "18") if number[5:7] in ("2A", "2B") else number
    if not corsica.isdecimal():
        return False
    month = int(corsica[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42) and 97 - int(corsica[:13]) % 97 == int(corsica[13:])


_IT_ODD = dict(
    zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21) * 2, strict=False)
) | dict(zip("KLMNOPQRSTUVWXYZ", (2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23), strict=True))


def _it_fiscal(number: str) -> bool:
    odd = sum(_IT_ODD[character] for character in number[0:15:2])
    even = sum(int(c) if c.isdigit() else ord(c) - ord("A") for c in number[1:15:2])
    return (odd + even) % 26 == ord(number[15]) - ord("A")


def _es_dni(number: str) -> bool:
    value = int(str("XYZ".find(number[0])) + number[1:-1] if number[0] in "XYZ" else number[:-1])
    return "TRWAGMYFPDXBNJZSQVHLCKE"[value % 23] == number[-1]


def _pt_nif(number: str) -> bool:
    rest = 11 - _weighted(number, range(9, 1, -1)) % 11
    return number[0] != "0" and (0 if rest > 9 else rest) == int(number[8])


def _nl_bsn(number: str) -> bool:
    return _varied(number) and _weighted(number, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _be_rrn(number: str) -> bool:
    rest = int(number[9:])
    first = (int(number[:9]), int("2" + number[:9]))
    return _ymd(number) and any(97 - value % 97 == rest for value in first)


def _se_personal(number: str) -> bool:
    short = number[-10:]
    day = int(short[4:6])
    return 1 <= int(short[2:4]) <= 12 and (1 <= day <= 31 or 61 <= day <= 91) and luhn(short)


def _no_birth(number: str) -> bool:
    first = _weighted(number, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1))
    second = _weighted(number, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1))
    day = int(number[:2]) % 40
    return 1 <= day <= 31 and 1 <= int(number[2:4]) % 40 <= 12 and first % 11 == 0 and second % 11 == 0


def _fi_personal(number: str) -> bool:
    return _dmy(number) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(number[:6] + number[7:10]) % 31] == number[10]


def _pl_pesel(number: str) -> bool:
    month = int(number[2:4]) % 20
    total = _weighted(number, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1))
    return 1 <= month <= 12 and 1 <= int(number[4:6]) <= 31 and total % 10 == 0 and _varied(number)


def _cz_birth(number: str) -> bool:
    month = int(number[2:4]) % 50 % 20
    return 1 <= month <= 12 and 1 <= int(number[4:6]) <= 31 and int(number) % 11 == 0


def _ro_cnp(number: str) -> bool:
    rest = _weighted(number, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return number[0] in "12345678" and _ymd(number[1:]) and (1 if rest == 10 else rest) == int(number[12])


def _bg_egn(number: str) -> bool:
    month = int(number[2:4]) % 20
    rest = _weighted(number, (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10
    return 1 <= month <= 12 and 1 <= int(number[4:6]) <= 31 and rest == int(number[9])


def _tr_kimlik(number: str) -> bool:
    digits = [int(digit) for digit in number]
    tenth = (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10
    return digits[0] != 0 and tenth == digits[9] and sum(digits[:10]) % 10 == digits[10] and _varied(number)


def _br_cpf(number: str) -> bool:
    first = _weighted(number, range(10, 1, -1)) * 10 % 11 % 10
    second = _weighted(number, range(11, 1, -1)) * 10 % 11 % 10
    return _varied(number) and number[9:] == f"{first}{second}"


def _cl_rut(number: str) -> bool:
    rest = 11 - sum(int(digit) * (2 + index % 6) for index, digit in enumerate(reversed(number[:-1]))) % 11
    return {11: "0", 10: "K"}.get(rest, str(rest)) == number[-1]


_TIMES: tuple[str, ...] = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678")
_TIMES += ("5987604321", "6598710432", "7659821043", "8765932104", "9876543210")
_TURNS = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def _in_aadhaar(number: str) -> bool:
    """Verhoeff's check digit, by its tables of multiplication and permutation."""
    state = 0
    for index, digit in enumerate(reversed(number)):
        state = int(_TIMES[state][int(_TURNS[index % 8][int(digit)])])
    return number[0] not in "01" and state == 0


def _cn_resident(number: str) -> bool:
    """GB 11643, ISO 7064 MOD 11-2."""
    total = sum(pow(2, 17 - index, 11) * int(digit) for index, digit in enumerate(number[:17]))
    return _is_date(number[6:10], number[10:12], number[12:14]) and "10X98765432"[total % 11] == number[17]


def _kr_resident(number: str) -> bool:
    return _ymd(number) and number[6] in "12345678"


def _jp_my_number(number: str) -> bool:
    rest = _weighted(number, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if rest <= 1 else 11 - rest) == int(number[11])


def _za_identity(number: str) -> bool:
    return _ymd(number) and number[10] in "012" and luhn(number)


def _eg_national(number: str) -> bool:
    """Century, date of birth, governorate (1 to 35, 88 abroad); its check digit is not published."""
    return number[0] in "23" and _ymd(number[1:]) and (1 <= int(number[7:9]) <= 35 or number[7:9] == "88")


def _kw_civil(number: str) -> bool:
    rest = 11 - _weighted(number, (2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)) % 11
    return number[0] in "123" and _ymd(number[1:]) and rest == int(number[11])


def _sa_national(number: str) -> bool:
    return number[0] in "12" and luhn(number)


def _anything(_: str) -> bool:
    return True


# The rules --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One country's number: its written form, the check over its letters and digits alone, and whether a word must
    speak of such a number beside it. Without a word, eleven digits from 0 are rather a telephone number."""

    name: str
    form: re.Pattern[str]
    check: Check
    needs_word: bool = False


def _rule(name: str, form: str, check: Check, *, needs_word: bool = False) -> Rule:
    return Rule(name, re.compile(rf"(?<![\w.,/+-])(?:{form})(?![\w]|[.,/-]\d)"), check, needs_word)


RULES: tuple[Rule, ...] = (
    _rule("us ssn", r"\d{3}-\d{2}-\d{4}", _us_ssn),
    _rule("us ssn, plain", r"\d{3} ?\d{2} ?\d{4}", _us_ssn, needs_word=True),
    _rule(
        "uk nino", r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", _anything
    ),
    _rule("uk nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", _uk_nhs, needs_word=True),
    _rule("de tax", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _de_tax, needs_word=True),
    _rule("fr nir", r"[1-8] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", _fr_nir),
    _rule("it fiscal", r"(?i:[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])", _it_fiscal),
    _rule("es dni", r"(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]", _es_dni),
    _rule("pt nif", r"\d{3} ?\d{3} ?\d{3}", _pt_nif, needs_word=True),
    _rule("nl bsn", r"\d{3}[ .]?\d{3}[ .]?\d{3}|\d{4}\.\d{2}\.\d{3}", _nl_bsn, needs_word=True),
    _rule("be rrn", r"\d{2}\.\d{2}\.\d{2}[ -]\d{3}[.-]\d{2}", _be_rrn),
    _rule("be rrn, plain", r"\d{11}", _be_rrn, needs_word=True),
    _rule("se personal", r"(?:(?:19|20)\d{2}|\d{2})\d{4}[-+]\d{4}", _se_personal),
    _rule("se personal, plain", r"(?:19|20)?\d{10}", _se_personal, needs_word=True),
    _rule("dk cpr", r"\d{6}[- ]?\d{4}", _dmy, needs_word=True),
    _rule("no birth", r"[1-7]\d{5} ?\d{5}", _no_birth),
    _rule("no birth, day below 10", r"0\d{5} ?\d{5}", _no_birth, needs_word=True),
    _rule("fi personal", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", _fi_personal),
    _rule("pl pesel", r"[1-9]\d{10}", _pl_pesel),
    _rule("pl pesel, year below 10", r"0\d{10}", _pl_pesel, needs_word=True),
    _rule("cz birth", r"\d{6}/\d{4}", _cz_birth),
    _rule("ro cnp", r"\d{13}", _ro_cnp),
    _rule("bg egn", r"\d{10}", _bg_egn, needs_word=True),
    _rule("tr kimlik", r"\d{11}", _tr_kimlik),
    _rule("br cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", _br_cpf),
    _rule("br cpf, plain", r"\d{11}", _br_cpf, needs_word=True),
    _rule("mx curp", r"[A-Z]{4}\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])[HMX][A-Z]{5}[A-Z\d]\d", _anything),
    _rule("cl rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", _cl_rut),
    _rule("in aadhaar", r"\d{4}[ -]\d{4}[ -]\d{4}", _in_aadhaar),
    _rule("in aadhaar, plain", r"\d{12}", _in_aadhaar, needs_word=True),
    _rule("in pan", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", _anything, needs_word=True),
    _rule("cn resident", r"[1-9]\d{16}[\dXx]", _cn_resident),
    _rule("kr resident", r"\d{6}-\d{7}", _kr_resident),
    _rule("jp my number", r"\d{4}[ -]?\d{4}[ -]?\d{4}", _jp_my_number, needs_word=True),
    _rule("za identity", r"\d{6} ?\d{4} ?\d{2} ?\d", _za_identity),
    _rule("il identity", r"\d{9}", luhn, needs_word=True),
    _rule("ca sin", r"\d{3}[ -]\d{3}[ -]\d{3}", luhn, needs_word=True),
    _rule("eg national", r"\d{14}", _eg_national),
    _rule("sa national", r"\d{10}", _sa_national, needs_word=True),
    _rule("ae emirates", r"784[ -]?\d{4}[ -]?\d{7}[ -]?\d", luhn),
    _rule("kw civil", r"\d{12}", _kw_civil),
)
_DOCUMENT = re.compile(r"(?<![\w.,/+-])[A-Z]{0,3}\d{6,14}[A-Z]?(?![\w]|[.,/-]\d)")
_PUNCTUATION = re.compile(r"[^0-9A-Za-z]")
_KEEPS_SIGN = frozenset({"fi personal"})  # the sign of the century counts as a place


def national_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Where such numbers stand in `text`, whose digits are ASCII; the same place may come twice."""
    words = Words(_WORDS, text, before=48, after=24)
    for rule in RULES:
        for match in rule.form.finditer(text):
            written = match[0].upper()
            number = written if rule.name in _KEEPS_SIGN else _PUNCTUATION.sub("", written)
            if rule.check(number) and (not rule.needs_word or words.beside(match)):
                yield match.span()
    documents = Words(_DOCUMENT_WORDS, text, before=24, after=0)
    yield from (match.span() for match in _DOCUMENT.finditer(text) if documents.beside(match))
