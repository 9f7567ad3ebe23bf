"""Dates of birth: whole dates beside a word that speaks of birth. Pure.

A date alone tells nothing about anybody and stays. Dates are read as people write them: in digits with the day, the
month or the year first, or with the month's name in one of the languages below.
"""

import re
from collections.abc import Iterator

from .words import Words

_BIRTH = re.compile(
    r"(?<![^\W\d_])(?<!-)(?i:born|birth|birthda(?:y|te)|d\.?o\.?b|geboren|geb\.|geburts\w{2,8}|née?|naissance|nacid[oa]"
    r"|nac[ií]|nacimiento|nat[oa] (?:il|a)|nascita|nascid[oa]|nasci|nascimento|geboortedatum|föd(?:d|elsedatum)|født"
    r"|fødselsdato|syntynyt|syntymäaika|urodz\w{2,8}|narozen\w?|rođen\w?|рожд\w{2,6}|родил\w{1,3}|doğum\w{0,4}|doğdum?"
    r"|(?:ال)?ميلاد(?:ي|ه|ها|ك)?|مولود[ةه]?|ولد(?:ت|تُ)?|נולד(?:תי|ה)?|לידה|जन्म)(?![^\W\d_])"
    r"|出生|生日|生まれ|生年月日|생년월일|생일"
)
_MONTH_NAMES = """
    january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec
    januar jänner februar märz mai juni juli oktober dezember okt dez
    janvier février fevrier mars avril juin juillet août aout septembre octobre novembre décembre decembre
    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre
    janeiro fevereiro março maio junho julho setembro outubro novembro dezembro
    januari februari maart mei augustus oktober
    stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia
    января февраля марта апреля мая июня июля августа сентября октября ноября декабря
    ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık
    يناير فبراير مارس أبريل ابريل إبريل مايو يونيو يوليو أغسطس اغسطس سبتمبر أكتوبر اكتوبر نوفمبر ديسمبر
    كانون شباط آذار نيسان أيار حزيران تموز آب أيلول تشرين جانفي فيفري أفريل جوان جويلية أوت
"""
_MONTHS = frozenset(_MONTH_NAMES.split())
_DIGITS = re.compile(
    r"(?<![A-Za-z0-9_./-])(?:"
    r"(?P<first>\d{1,2})(?P<sign> ?[./-] ?)(?P<second>\d{1,2})(?P=sign)(?:\d{4}|\d{2})"
    r"|\d{4}(?P<other>[./-])(?P<month>\d{1,2})(?P=other)(?P<day>\d{1,2})"
    r"|\d{4} ?[年년] ?\d{1,2} ?[月월] ?\d{1,2} ?[日일]"
    r")(?![A-Za-z0-9_]|[./-]\d)"
)
_NAMED = re.compile(
    r"(?<!\w)(?:"
    r"\d{1,2}(?:st|nd|rd|th|er|\.)?,? (?:de |of |do )?(?P<name>[^\W\d_]{3,12})\.?,?(?: de| الأول| الثاني)? \d{4}"
    r"|(?P<leading>[^\W\d_]{3,12})\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4}"
    r")(?!\w)",
    re.IGNORECASE,
)


def birth_dates(text: str) -> Iterator[tuple[int, int]]:
    """Where such dates stand in `text`, whose digits are ASCII."""
    words = Words(_BIRTH, text, before=48, after=24)
    if not words.starts:
        return
    for match in _DIGITS.finditer(text):
        if _is_day(match) and words.beside(match):
            yield match.span()
    for match in _NAMED.finditer(text):
        if (match["name"] or match["leading"]).casefold() in _MONTHS and words.beside(match):
            yield match.span()


def _is_day(match: re.Match[str]) -> bool:
    first, second = match["first"] or match["month"], match["second"] or match["day"]
    if first is None:
        return True  # the characters between the digits say which is which
    low, high = sorted((int(first), int(second)))
    return 1 <= low <= 12 and high <= 31
