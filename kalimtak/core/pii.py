"""Finding personal data that a pattern can know, and putting placeholders in its place. Pure: no Django.

E-mail addresses, telephone numbers, payment cards (Luhn, ISO/IEC 7812-1), IBANs (country length and mod 97,
ISO 13616), IP addresses, and user names with passwords inside URLs. Names and postal addresses are out of reach of
patterns. Digits of other scripts count as digits. Every pattern runs in time linear in the text: a match can only
begin at the edge of a token, and each repetition is bounded.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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

# One character for one character, so that places found in the folded text are places in the original.
_FOLD = {
    code: str(unicodedata.decimal(chr(code)))
    for start in (0x0660, 0x06F0, 0x0966, 0x09E6, 0xFF10)
    for code in range(start, start + 10)
} | {0xFF20: "@", 0xFF0E: ".", 0x2010: "-", 0x2011: "-", 0x2013: "-", 0x00A0: " ", 0x202F: " "}

_CREDENTIALS = re.compile(r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/@:]{1,256}+:[^\s/@]{1,256}+)@")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,254}+@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_DIGIT_RUN = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,}+")
_CARD_PREFIX = re.compile("[2-6]|1800")
_IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{3,39}+(?:\.\d{1,3}){0,3}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w+-])(?<!\d[.,:/])"
    r"(?:"
    r"(?:\+|00)(?:[ ./-]?\(?\d{1,5}\)?){2,8}"  # international: +49 (30) 1234-567, 0044 20 7946 0000
    r"|(?:1[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[ .-])\d{3}[ .-]\d{4}"  # North America: (555) 010-4477
    r"|\(\d{2,4}\)[ ]?\d{3,4}[ -]\d{3,4}"  # area code in parentheses
    r"|\(?0\d{1,5}\)?(?:[ ./-]{1,2}\d{2,8}){1,5}"  # trunk prefix: 030 1234567, (020) 7946 0000
    r"|0\d{8,11}"
    r")"
    r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?"
    r"(?![\w]|[.,:/-]\d)",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}")


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data of one kind (`EMAIL`, `PHONE`, `CARD`, `IBAN`, `IP`, `CREDENTIALS`) at text[start:end]."""

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
    folded = text.translate(_FOLD)
    taken = bytearray(len(text))
    findings: list[Finding] = []
    if "@" not in folded and ":" not in folded and not any(character.isdigit() for character in folded):
        return ()
    for kind, detect in _DETECTORS:
        for start, end in detect(folded):
            if not any(taken[start:end]):
                taken[start:end] = b"\x01" * (end - start)
                findings.append(Finding(kind, start, end))
    return tuple(sorted(findings, key=lambda finding: finding.start))


Spans = Iterator[tuple[int, int]]


def _credentials(text: str) -> Spans:
    return (match.span(1) for match in _CREDENTIALS.finditer(text))


def _emails(text: str) -> Spans:
    return (match.span() for match in _EMAIL.finditer(text))


def _ibans(text: str) -> Spans:
    """Country code, then as many letters and digits as that country's numbers have, in groups or not."""
    for match in _IBAN_START.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        end, compact = _take_alphanumerics(text, match.start(), length)
        if compact and not text[end : end + 1].isalnum() and _mod_97(compact) == 1:
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


def _mod_97(iban: str) -> int:
    """ISO 7064 MOD 97-10 of a number whose first four characters go to its end, letters counting from A = 10."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97


def _cards(text: str) -> Spans:
    """Within each run of digit groups, the longest stretch of whole groups that is a card number."""
    for run in _DIGIT_RUN.finditer(text):
        groups = [match.span() for match in re.finditer(r"\d+", run[0])]
        first = 0
        while first < len(groups):
            last = _card_end(run[0], groups, first)
            if last is None:
                first += 1
                continue
            yield run.start() + groups[first][0], run.start() + groups[last][1]
            first = last + 1


def _card_end(run: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of a card number that begins with group `first`, if one does."""
    digits, found = "", None
    for start, end in groups[first : first + CARD_DIGITS.stop // CARD_GROUP]:
        digits += run[start:end]
        if end - start < CARD_GROUP or len(digits) >= CARD_DIGITS.stop:
            break
        if len(digits) in CARD_DIGITS and _CARD_PREFIX.match(digits) and len(set(digits)) > 1 and _luhn(digits):
            found = groups.index((start, end), first)
    return found


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits a multiple of ten."""
    doubled = (int(digit) * (2 if index % 2 else 1) for index, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _addresses(text: str) -> Spans:
    for match in _IP4.finditer(text):
        if _is_ip(match[0]):
            yield match.span()
    for match in _IP6.finditer(text):
        # "12:30" is a time and "ab::cd" may be program text: two colons and a digit are the least.
        if match[0].count(":") >= 2 and any(character.isdigit() for character in match[0]) and _is_ip(match[0]):
            yield match.span()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _phones(text: str) -> Spans:
    for match in _PHONE.finditer(text):
        number = re.split(r"x|ext", match[0], flags=re.IGNORECASE)[0]
        digits = sum(character.isdigit() for character in number)
        if 8 <= digits <= 15 and not _DATE.fullmatch(number):
            yield match.span()


_DETECTORS: tuple[tuple[str, Callable[[str], Spans]], ...] = (
    ("CREDENTIALS", _credentials),
    ("EMAIL", _emails),
    ("IBAN", _ibans),
    ("CARD", _cards),
    ("IP", _addresses),
    ("PHONE", _phones),
)
