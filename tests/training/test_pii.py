"""Personal data that a pattern can know becomes a placeholder, at a cost linear in the text."""

import random
import time

import pytest

from kalimtak.core import pii


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jo.doe+x@mail.example.org!", "write to <EMAIL>!"),
        ("call +49 (30) 1234-5678 now", "call <PHONE> now"),
        ("call 0044 20 7946 0018", "call <PHONE>"),
        ("call (555) 010-4477 ext 12", "call <PHONE>"),
        ("Rückruf: 030 1234567", "Rückruf: <PHONE>"),
        ("card 4111 1111 1111 1111 exp 12/27", "card <CARD> exp 12/27"),
        ("order 12 4111-1111-1111-1111", "order 12 <CARD>"),
        ("4111111111111111,5500005555555559,1", "<CARD>,<CARD>,1"),
        ("3,4111 1111 1111 1111.", "3,<CARD>."),
        ("0.5100000000000008 4111 1111 1111 1111 0.25", "0.5100000000000008 <CARD> 0.25"),
        ("IBAN gb82 west 1234 5698 7654 32 please", "IBAN <IBAN> please"),
        ("DE89370400440532013000", "<IBAN>"),
        ("from 192.168.10.7 and 2001:db8::8a2e:370:7334", "from <IP> and <IP>"),
        ("see https://root:hunter2@db.example.org/x", "see https://<CREDENTIALS>@db.example.org/x"),
        ("رقمي ٠٥٠١٢٣٤٥٦٧ وبريدي amal@example.org", "رقمي <PHONE> وبريدي <EMAIL>"),
        ("jo (at) example [dot] org", "<EMAIL>"),
        (
            "https://example.org/a?lang=de&access_token=s3cr3t#top",
            "https://example.org/a?lang=de&access_token=<CREDENTIALS>#top",
        ),
        ("fax 3660170548", "fax <PHONE>"),
        ("3660170548-Fax", "<PHONE>-Fax"),
        ("21 253 109 8211", "<PHONE>"),
        ("اتصل على ٩٢٠٠ ٠٠٠ ٤٤", "اتصل على <PHONE>"),
        ("She was born on 2/8/1935.", "She was born on <BIRTH_DATE>."),
        ("geboren am 3. März 1971 in Ulm", "geboren am <BIRTH_DATE> in Ulm"),
        ("DOB: 1990-11-05", "DOB: <BIRTH_DATE>"),
        ("née le 1er juillet 1984", "née le <BIRTH_DATE>"),
        ("تاريخ الميلاد ٠٣/٠٤/١٩٨٨", "تاريخ الميلاد <BIRTH_DATE>"),
        ("ولدت في 5 يناير 1990", "ولدت في <BIRTH_DATE>"),
        ("出生于1987年6月5日", "出生于<BIRTH_DATE>"),
        ("SSN 078-05-1120", "SSN <NATIONAL_ID>"),
        ("رقم الهوية ١٠٠٤٤٢١٣٦٨", "رقم الهوية <NATIONAL_ID>"),
        ("passport no. A1234567", "passport no. <NATIONAL_ID>"),
    ],
)
def test_personal_data_becomes_a_placeholder(text, expected):
    assert pii.redact(text).text == expected


@pytest.mark.parametrize(
    "text",
    [
        "I have 3 cats and 12 fish",
        "4111 1111 1111 1112 fails the check digit",
        "score 0.4111111111111111 of -12.4111111111111111",
        "Wert 0,4111111111111111 oder ٠٫٤١١١١١١١١١١١١١١١ او ١٬٤١١١١١١١١١١١١١١١",
        "4111111111111111.25 microseconds",
        "GB82 WEST 1234 5698 7654 33 fails the check digits",
        "on 2024-01-15 at 12:30:45",
        "version 999.1.2.300",
        "10 000 000 people, order 123456789",
        "std::vector and a@b",
        "they met on 2/8/1935 and on 3 March 1971",
        "a US-born player joined on Sept. 11, 2001",
        "10 000 000 people in 2024-01-15-1030 entries",
        "ZIP 03262 2437 Main St",
        "born in 1977, 12 of 30",
        "the SSN of 12 people",
        "https://example.org/?q=token&page=2",
        "",
    ],
)
def test_what_only_resembles_personal_data_stays(text):
    assert pii.redact(text).text == text


def test_redacting_twice_changes_nothing_more():
    once = pii.redact("jo@example.org, +49 30 12345678, 192.168.0.1").text
    assert pii.redact(once).text == once


HOSTILE = (
    *(
        "a",
        "1",
        "1 ",
        "1-",
        "12 34 ",
        "a@",
        "a.b@c.",
        "+1",
        "0 1-",
        "::",
        "1.1.",
        "gb82 ",
        "http://a:",
        "x(at)",
        "(at) a.",
    ),
    *("&token=a", "born 1/1/", "January 1 ", "passport 1", "123456789 ", "12345678901 ", "call 123456 ", "AB12", "٠١٢"),
    *("4111111111111111 ", "811218-9876 ", "هوية ٢٩٠٠١٠١١٢٣٤٥٦٧ "),
)


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.clock
def test_the_cost_is_linear_in_the_text(unit):
    """Four times the text takes four times the time, give or take what else runs; quadratic would be sixteen."""
    short, long = (unit * 40_000)[:40_000], (unit * 160_000)[:160_000]
    assert seconds(long) < 8 * max(seconds(short), 0.005)


@pytest.mark.clock
def test_megabytes_that_want_to_be_everything_at_once_end():
    text = "".join(unit * 4_000 for unit in HOSTILE) * 3
    assert len(text) > 2_000_000
    assert seconds(text) / len(text) * 10_000 < 0.05  # seconds for 10,000 characters


def seconds(text):
    """Of the processor, the least of two turns."""

    def turn():
        begun = time.process_time()
        pii.redact(text)
        return time.process_time() - begun

    return min(turn(), turn())


def test_placeholders_tell_the_kind_alone():
    first, second = pii.redact("call +49 30 12345678 now").text, pii.redact("call (555) 010-4477 now").text
    assert first == second


def test_findings_lie_where_they_stand_in_the_text():
    text = "‏بريدي amal＠example.org ورقمي ٠٥٠ ١٢٣ ٤٥٦٧"
    assert [text[found.start : found.end] for found in pii.find(text)] == ["amal＠example.org", "٠٥٠ ١٢٣ ٤٥٦٧"]


def test_random_fractions_are_no_personal_data():
    numbers = random.Random(11)
    for _ in range(1_000):
        text = f"score {numbers.random()!r}"
        assert pii.redact(text).text == text
