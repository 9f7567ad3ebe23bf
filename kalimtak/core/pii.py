"""Finding personal data that a pattern can know, and putting placeholders in its place. Pure: no Django.

E-mail addresses, telephone numbers, payment cards (Luhn, ISO/IEC 7812-1), IBANs (country length and mod 97,
ISO 13616), IP addresses, passwords and tokens inside URLs, dates of birth and national numbers. Names and postal
addresses are out of reach of patterns. Digits of other scripts count as digits. Every pattern runs in time linear in
the text: a match can only begin at the edge of a token, and each repetition is bounded. Most texts hold none of the
characters that all personal data needs, and cost one look.

A placeholder tells the kind and nothing else, so that texts that differ in personal data alone become the same text,
and a model learns one word for each kind.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .birth_dates import birth_dates
from .national_numbers import luhn, mod_97, national_numbers
from .words import Words

IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d{2})",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23"
        "GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MR27MT31MU30"
        "NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SD18SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20",
    )
}
CARD_DIGITS = range(13, 20)
CARD_GROUP = 3  # digits in the shortest group as cards are written
DECIMAL_SIGNS = ".,٫٬"  # between the digits of one number, the Arabic ones included

# The zero of every script whose digits people write numbers with.
_ZEROS: tuple[int, ...] = (
    0x0660,
    0x06F0,
    0x07C0,
    0x0966,
    0x09E6,
    0x0A66,
    0x0AE6,
    0x0B66,
    0x0BE6,
    0x0C66,
    0x0CE6,
    0x0D66,
)
_ZEROS += (0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810, 0xFF10)
# One character for one character, so that places found in the folded text are places in the original.
_FOLD = {zero + digit: str(unicodedata.decimal(chr(zero + digit))) for zero in _ZEROS for digit in range(10)}
_FOLD |= dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212), "-")
_FOLD |= dict.fromkeys((0x00A0, 0x2007, 0x2009, 0x202F), " ")
_FOLD |= {0xFF20: "@", 0xFF0E: ".", 0xFF1A: ":", 0xFF0B: "+"}
_HINT = re.compile(r"[\d@＠:：=({[]")  # one set of characters, which is found fast
_DIGIT = re.compile(r"\d")
_NATIONAL_HINT = re.compile(r"\d[\dA-Za-z ./+-]{3}")  # no national number is written without such a run

_CREDENTIALS = re.compile(r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/@:]{1,256}+:[^\s/@]{1,256}+)@")
_SECRET = re.compile(
    r"(?i:[?&;](?:access_|refresh_|id_|auth_?)?(?:token|api_?key|key|pass(?:word|wd)?|pwd|secret|sig(?:nature)?|session(?:id)?)=)"
    r"([^\s&;#<>\"']{1,512}+)"
)
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,254}+@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_SPELLED_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}+ ?[(\[{] ?at ?[)\]}] ?"
    r"(?:[^\W_][\w-]{0,62} ?(?:\.|[(\[{] ?dot ?[)\]}]) ?){1,8}[^\W\d_]{2,24}(?![\w-])",
    re.IGNORECASE,
)
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_DIGIT_RUN = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,}+")
_FRACTION = re.compile(r"[.٫]\d")  # behind whole digits; a comma may as well stand between two numbers
_CARD_PREFIX = re.compile("[2-6]|1800")
_IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{3,39}+(?:\.\d{1,3}){0,3}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w+-])(?<!\d[.,:/])"
    r"(?:"
    r"(?:\+|00)(?:[ ./-]?\(?\d{1,5}\)?){2,8}"  # international: +49 (30) 1234-567, 0044 20 7946 0000
    r"|(?:1[ .-])?(?:\(\d{3}\)[ ]?|(?<!\d[ -])\d{3}[ .-])\d{3}[ .-]\d{4}"  # North America: (555) 010-4477
    r"|\(\d{2,4}\)[ ]?\d{3,4}[ -]\d{3,4}"  # area code in parentheses
    r"|\(?0\d{1,5}\)?(?:[ ./-]{1,2}\d{2,8}){1,5}"  # trunk prefix: 030 1234567, (020) 7946 0000
    r"|0\d{8,11}"
    r")"
    r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?"
    r"(?![\w]|[.,:/-]\d)",
    re.IGNORECASE,
)
# Groups without a sign of what they are: 21 253 109 8211. Groups of three alone are thousands.
_GROUPS = re.compile(r"(?<![\w.,:/+#$€£-])\d{2,4}(?P<sign>[ -])\d{2,4}(?:(?P=sign)\d{2,4}){1,3}(?![\w]|[.,:/-]\d)")
# Digits beside a word that says what they are.
_SPOKEN = re.compile(r"(?<![\w/#$€£-])(?<!\d[.,:])\(?\d{1,5}\)?(?:[ ./-]?\d{1,12}){0,5}(?![\w]|[.,:/-]\d)")
_PHONE_WORD = re.compile(
    r"(?<![^\W\d_])(?i:(?:tele)?phones?|tel|mobile?|cell(?:phone|ulare)?|fax|call|ring|dial|whats ?app|contact|reach me"
    r"|text me|telefon(?:nummer|o|u)?|handy|rufnummer|anrufen|teléfono|celular|móvil|llama(?:me|r)?|téléphone|portable"
    r"|appele[rz]|ligar|telemóvel|telefoon|cep|телефон|звони(?:те|ть)?|моб|טלפון|נייד|(?:ال)?هاتف(?:ي|ه|ها)?"
    r"|(?:ال)?جوال(?:ي|ه|ها)?|(?:ال)?موبايل(?:ي|ه)?|(?:ال)?تلفون(?:ي)?|اتصل(?:وا)?|رقمي|واتس(?:اب)?)(?![^\W\d_])"
    r"|电话|手机|電話|전화"
)
_PHONE_WORD_AFTER = re.compile(r"[ ]?[-(]?[ ]?(?i:office|fax|home|mobile|cell|work|tel|phone)\b")
_DATE = re.compile(r"\d{1,4}([./ -])\d{1,2}\1\d{1,4}(?:[ -]\d{2}){0,2}")
_POSTCODE_AND_HOUSE = re.compile(r"0\d{4} \d{1,4}")
_YEAR = re.compile(r"(?:19|20)\d\d[ -]")


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data of one kind at text[start:end].

    Kinds: `CREDENTIALS`, `EMAIL`, `IBAN`, `CARD`, `IP`, `NATIONAL_ID`, `BIRTH_DATE`, `PHONE`.
    """

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Redaction:
    """The text with a placeholder such as `<EMAIL>` for each finding."""

    text: str
    findings: tuple[Finding, ...]


def redact(text: str) -> Redaction:
    """Replace all personal data found in `text`; the rest stays as it is. Idempotent."""
    findings = find(text)
    parts, position = [], 0
    for finding in findings:
        parts += [text[position : finding.start], f"<{finding.kind}>"]
        position = finding.end
    return Redaction("".join(parts) + text[position:], findings)


def find(text: str) -> tuple[Finding, ...]:
    """Personal data in `text`, in order and without overlap; where two kinds overlap, the more telling one stays."""
    if not _HINT.search(text):
        return ()
    folded = text if text.isascii() else text.translate(_FOLD)
    digits = len(_DIGIT.findall(folded))
    taken = bytearray(len(text))
    findings: list[Finding] = []
    for kind, least_digits, detect in _DETECTORS:
        if digits < least_digits:
            continue
        for start, end in detect(folded):
            if not any(taken[start:end]):
                taken[start:end] = b"\x01" * (end - start)
                findings.append(Finding(kind, start, end))
    return tuple(sorted(findings, key=lambda finding: finding.start))


Spans = Iterator[tuple[int, int]]


def _credentials(text: str) -> Spans:
    """User name and password before a host, and what a query calls a token or a password."""
    if "://" in text:
        yield from (match.span(1) for match in _CREDENTIALS.finditer(text))
    if "=" in text:
        yield from (match.span(1) for match in _SECRET.finditer(text))


def _emails(text: str) -> Spans:
    """jo@example.org, and jo (at) example [dot] org."""
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))
    if "(" in text or "[" in text or "{" in text:
        yield from (match.span() for match in _SPELLED_EMAIL.finditer(text))


def _ibans(text: str) -> Spans:
    """Country code, then as many letters and digits as that country's numbers have, in groups or not."""
    for match in _IBAN_START.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        end, compact = _take_alphanumerics(text, match.start(), length)
        if compact and not text[end : end + 1].isalnum() and mod_97(compact) == 1:
            yield match.start(), end


def _take_alphanumerics(text: str, start: int, count: int) -> tuple[int, str]:
    """The end and content of `count` ASCII letters and digits from `start`, single blanks or hyphens between them."""
    taken: list[str] = []
    position = start
    while len(taken) < count and position < len(text):
        character = text[position]
        if character.isascii() and character.isalnum():
            taken.append(character)
        elif character not in " -" or text[position - 1] in " -":
            return position, ""
        position += 1
    return position, "".join(taken) if taken and len(taken) == count else ""


def _cards(text: str) -> Spans:
    """Within each run of digit groups, the longest stretch of whole groups that is a card number."""
    for match in _DIGIT_RUN.finditer(text):
        run = match[0]  # once: each time it is asked for it is copied
        groups = [group.span() for group in re.finditer(r"\d+", run)]
        first = int(_is_long(groups[0]) and _follows_number(text, match.start()))
        if _is_long(groups[-1]) and _FRACTION.match(text, match.end()):
            groups.pop()
        while first < len(groups):
            last = _card_end(run, groups, first)
            if last is None:
                first += 1
                continue
            yield match.start() + groups[first][0], match.start() + groups[last][1]
            first = last + 1


def _is_long(group: tuple[int, int]) -> bool:
    """Whether a group has the digits of a card by itself. Only such a one may be a part of a decimal fraction, which
    nobody writes in groups as long as a card's."""
    return group[1] - group[0] >= CARD_DIGITS.start


def _follows_number(text: str, start: int) -> bool:
    """Whether the digits at `start` are a fraction: 0.1343642440124012. After a number as long as a card they are not,
    since cards are listed with commas, too."""
    if start < 2 or text[start - 1] not in DECIMAL_SIGNS:
        return False
    before = text[max(0, start - 1 - CARD_DIGITS.start) : start - 1]
    return before[-1].isdigit() and not (len(before) == CARD_DIGITS.start and before.isdigit())


def _card_end(run: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of a card number that begins with group `first`, if one does."""
    digits, found = "", None
    for start, end in groups[first : first + CARD_DIGITS.stop // CARD_GROUP]:
        digits += run[start:end]
        if end - start < CARD_GROUP or len(digits) >= CARD_DIGITS.stop:
            break
        if len(digits) in CARD_DIGITS and _CARD_PREFIX.match(digits) and len(set(digits)) > 1 and luhn(digits):
            found = groups.index((start, end), first)
    return found


def _addresses(text: str) -> Spans:
    if "." in text:
        yield from (match.span() for match in _IP4.finditer(text) if _is_ip(match[0]))
    if text.count(":") >= 2:
        # "12:30" is a time and "ab::cd" may be program text: two colons and a digit are the least.
        for match in _IP6.finditer(text):
            if match[0].count(":") >= 2 and any(map(str.isdigit, match[0])) and _is_ip(match[0]):
                yield match.span()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _phones(text: str) -> Spans:
    for match in _PHONE.finditer(text):
        number = _EXTENSION.split(match[0])[0]
        is_known_otherwise = _DATE.fullmatch(number) or _POSTCODE_AND_HOUSE.fullmatch(number)
        if 8 <= _count_digits(number) <= 15 and not is_known_otherwise:
            yield match.span()
    for match in _GROUPS.finditer(text):
        if 9 <= _count_digits(match[0]) <= 13 and not _YEAR.match(match[0]) and not _are_thousands(match[0]):
            yield match.span()
    words = Words(_PHONE_WORD, text, before=24, after=0)
    for match in _SPOKEN.finditer(text):
        is_long_enough = 7 <= _count_digits(match[0]) <= 15 and not _DATE.fullmatch(match[0])
        if is_long_enough and (words.beside(match) or _PHONE_WORD_AFTER.match(text, match.end())):
            yield match.span()


_EXTENSION = re.compile("x|ext", re.IGNORECASE)


def _count_digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _are_thousands(number: str) -> bool:
    """10 000 000: every group but the first has three digits."""
    return " " in number and all(len(group) == 3 for group in number.split(" ")[1:])


def _national(text: str) -> Spans:
    return national_numbers(text) if _NATIONAL_HINT.search(text) else iter(())


# Kind, how many digits it has at least, and where it stands: the more telling first.
_DETECTORS: tuple[tuple[str, int, Callable[[str], Spans]], ...] = (
    ("CREDENTIALS", 0, _credentials),
    ("EMAIL", 0, _emails),
    ("IBAN", 10, _ibans),
    ("CARD", CARD_DIGITS.start, _cards),
    ("IP", 1, _addresses),
    ("NATIONAL_ID", 5, _national),
    ("BIRTH_DATE", 4, birth_dates),
    ("PHONE", 7, _phones),
)
