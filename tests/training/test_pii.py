"""Personal data that a pattern can know becomes a placeholder, at a cost linear in the text."""

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
        ("IBAN gb82 west 1234 5698 7654 32 please", "IBAN <IBAN> please"),
        ("DE89370400440532013000", "<IBAN>"),
        ("from 192.168.10.7 and 2001:db8::8a2e:370:7334", "from <IP> and <IP>"),
        ("see https://root:hunter2@db.example.org/x", "see https://<CREDENTIALS>@db.example.org/x"),
        ("رقمي ٠٥٠١٢٣٤٥٦٧ وبريدي amal@example.org", "رقمي <PHONE> وبريدي <EMAIL>"),
    ],
)
def test_personal_data_becomes_a_placeholder(text, expected):
    assert pii.redact(text).text == expected


@pytest.mark.parametrize(
    "text",
    [
        "I have 3 cats and 12 fish",
        "4111 1111 1111 1112 fails the check digit",
        "GB82 WEST 1234 5698 7654 33 fails the check digits",
        "on 2024-01-15 at 12:30:45",
        "version 999.1.2.300",
        "10 000 000 people, order 123456789",
        "std::vector and a@b",
        "",
    ],
)
def test_what_only_resembles_personal_data_stays(text):
    assert pii.redact(text).text == text


def test_redacting_twice_changes_nothing_more():
    once = pii.redact("jo@example.org, +49 30 12345678, 192.168.0.1").text
    assert pii.redact(once).text == once


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "a@", "a.b@c.", "+1", "0 1-", "::", "1.1.", "gb82 ", "http://a:", "4111111111111111 "]
)
def test_the_cost_is_linear_in_the_text(unit):
    text = (unit * 100_000)[:100_000]
    start = time.perf_counter()
    pii.redact(text)
    assert time.perf_counter() - start < 2.0  # some 20 ms per 10,000 characters, with room for a busy machine
