"""What is written when a question is answered."""

import pytest
from django.db import DataError, IntegrityError, connection

from interactions.insertion import ROWS_AT_ONCE
from interactions.models import PersonalRecord, RequestMemo, Subject, UserInteraction
from interactions.services import (
    NewAnswer,
    NewMemo,
    answers_record,
    interactions_record,
    memo_owner,
    pseudonym_of,
    source_of,
    subject_of,
)
from kalimtak.core.errors import Unavailable


def test_rows_and_personal_records_are_written_together(make_row):
    rows = [make_row(address="198.51.100.4", user_agent="curl/8" * 100), make_row()]
    interactions_record(rows)
    assert UserInteraction.objects.count() == 2
    record = PersonalRecord.objects.get()
    assert (record.interaction_id, record.address, len(record.user_agent)) == (rows[0].id, "198.51.100.4", 300)


def test_recording_the_same_rows_again_does_nothing(make_row):
    rows = [make_row(address="198.51.100.4")]
    interactions_record(rows)
    interactions_record(rows)
    assert UserInteraction.objects.count() == PersonalRecord.objects.count() == 1


@pytest.mark.parametrize("person", ["", "user-17"])  # who is not known needs no transaction on PostgreSQL
def test_every_column_is_stored_as_the_orm_would_store_it(make_row, person):
    agent = "curl/8 '); DROP TABLE x; -- \\ %s %(a)s \U0001f600\n"
    row = make_row(
        address="2001:db8::1",
        user_agent=agent,
        fields={"text": 'Ünïcode 🎉 "quoted" \\ % %s ؟'},
        labels="joy|love",
        confidence=0.123456,
        scores={"joy": 0.25, "été": 1e-7},
        abstained=True,
        source="backup",
        flags=["low_confidence", "emoji_only"],
        latency_ms=1.5,
        pseudonym=pseudonym_of(person) if person else "",
    )
    interactions_record([row])
    stored = UserInteraction.objects.select_related("personal").get()
    twin = UserInteraction(
        **{field.attname: getattr(row, field.attname, field.get_default()) for field in stored._meta.concrete_fields}
    )
    twin.subject_id = subject_of(person).pk if person else None
    UserInteraction.objects.all().delete()
    twin.save(force_insert=True)
    by_orm = UserInteraction.objects.values().get()
    assert by_orm == {name: getattr(stored, name) for name in by_orm}
    assert (stored.personal.address, stored.personal.user_agent) == ("2001:db8::1", agent)
    assert stored.personal.created_at == row.created_at


@pytest.mark.postgres
def test_a_value_that_postgresql_cannot_hold_is_refused_as_by_any_statement(make_row):
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    with pytest.raises(DataError):
        interactions_record([make_row(), make_row(label="j\x00y")])
    assert not UserInteraction.objects.exists()


def test_a_group_larger_than_one_statement_is_stored_whole(make_row):
    interactions_record([make_row() for _ in range(ROWS_AT_ONCE + 3)])
    assert UserInteraction.objects.count() == ROWS_AT_ONCE + 3


@pytest.mark.parametrize("address", ["unix:", "", "fe80::1%eth0"])
def test_an_odd_address_costs_no_answer(make_row, address):
    interactions_record([make_row(address=address, user_agent="x")])
    assert PersonalRecord.objects.get().address in (None, "fe80::1")


@pytest.mark.django_db(transaction=True)
def test_a_group_is_written_whole_or_not_at_all(make_row):
    with pytest.raises(IntegrityError):
        interactions_record([make_row(), make_row(version_id=10**6)])
    assert not UserInteraction.objects.exists()


def test_a_person_is_stored_as_a_keyed_hash(make_row, settings):
    interactions_record([make_row(pseudonym=pseudonym_of("user-17")), make_row(pseudonym=pseudonym_of("user-17"))])
    assert Subject.objects.get() == subject_of("user-17")
    first = pseudonym_of("user-17")
    settings.KALIMTAK_SUBJECT_KEY = "another key"
    assert pseudonym_of("user-17") != first


def test_without_a_subject_key_nobody_is_stored(settings):
    settings.KALIMTAK_SUBJECT_KEY = ""
    with pytest.raises(Unavailable, match="setup"):
        pseudonym_of("user-17")


def test_callers_are_told_apart(carla, rami, nobody):
    owners = [memo_owner(caller) for caller in (carla, rami, nobody)]
    assert [owner.partition(":")[0] for owner in owners] == ["key", "user", "anonymous"]
    assert "203.0.113.7" not in owners[2]
    assert source_of(carla, "user-17") == source_of(rami, "user-17") == f"subject:{pseudonym_of('user-17')}"


def memo(text, response, digest="d"):
    return NewMemo("key:abc", text, digest, {"results": [{"interaction_id": response}]})


def test_of_two_requests_under_one_id_the_first_is_written(make_row):
    rows = [make_row(), make_row(), make_row()]
    answers = [
        NewAnswer([rows[0]], memo("r", "first")),
        NewAnswer([rows[1]], memo("r", "second")),
        NewAnswer([rows[2]]),
    ]
    earlier = answers_record(answers)
    assert earlier[0] is None and earlier[2] is None
    assert earlier[1].response == {"results": [{"interaction_id": "first"}]}
    assert set(UserInteraction.objects.values_list("pk", flat=True)) == {rows[0].id, rows[2].id}
    assert RequestMemo.objects.count() == 1
