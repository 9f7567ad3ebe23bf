"""Answers that were given while the database was away: spooled, found again, recorded once. With real rows."""

import threading

import pytest
from django.db import OperationalError, connections
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from interactions import spool, spooling
from interactions.models import PersonalRecord, RequestMemo, UserInteraction
from interactions.services import NewAnswer, NewMemo, answers_record, feedback_give, pseudonym_of, spool_folder
from interactions.spooling import SPOOL, answers_give, answers_spool, first_response
from kalimtak.core.errors import Conflict, NotFound, Unavailable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.KALIMTAK_VAR = tmp_path
    yield spool_folder()
    SPOOL.stop()


@pytest.fixture
def make_answer(make_row):
    def make(request_id="", body="d1", **values):
        row = make_row(**values)
        memo = NewMemo("key:carla", request_id, body, {"results": [{"interaction_id": str(row.id)}]}, None)
        return NewAnswer([row], memo if request_id else None)

    return make


def is_recorded(answer):
    return UserInteraction.objects.filter(pk=answer.rows[0].id).count() == 1


def leave():
    """As if this process had died."""
    SPOOL.stop()


def away(*_, **__):
    raise OperationalError("the server closed the connection\nDETAIL: a private word")


def test_an_answer_comes_back_as_it_was_given(make_answer, carla):
    pseudonym = pseudonym_of("user-17")
    answer = make_answer(
        "r1", fields={"text": "ماذا\nnow"}, pseudonym=pseudonym, address="203.0.113.7", api_key_id=carla.key_id
    )
    assert answers_spool([answer]) == [None]
    assert not UserInteraction.objects.exists()
    leave()
    assert spooling.left_behind_record() == 1
    row = UserInteraction.objects.get()
    given = answer.rows[0]
    assert (row.pk, row.fields, row.created_at, row.scores) == (given.id, given.fields, given.created_at, given.scores)
    assert (row.subject.pseudonym, row.api_key_id) == (pseudonym, carla.key_id)
    assert PersonalRecord.objects.get().address == "203.0.113.7"
    assert RequestMemo.objects.get().response == answer.memo.response
    assert spool.files(spool_folder(), spool.WAITING) == []


def test_what_was_recorded_before_the_connection_broke_is_not_recorded_again(make_answer):
    answers = [make_answer("r1"), make_answer()]
    answers_record(answers)
    answers_spool([answers[1]])
    SPOOL.write(answers)
    leave()
    spooling.left_behind_record()
    assert (UserInteraction.objects.count(), RequestMemo.objects.count()) == (2, 1)


def test_a_request_is_answered_once_while_its_answer_lies_in_the_spool(make_answer):
    first, again, other = make_answer("r1"), make_answer("r1"), make_answer("r1", body="d2")
    assert answers_spool([first, make_answer("r1")])[1].response == first.memo.response
    assert first_response("key:carla", "r1", "d1") == first.memo.response
    assert first_response("key:nora", "r1", "d1") is None
    with pytest.raises(Conflict):
        first_response("key:carla", "r1", "d2")
    assert [memo.response for memo in answers_spool([again, other])] == 2 * [first.memo.response]
    [earlier, none] = answers_give([again, make_answer()])
    assert (earlier.response, none) == (first.memo.response, None)
    leave()
    spooling.left_behind_record()
    assert UserInteraction.objects.count() == 2
    assert first_response("key:carla", "r1", "d1") == first.memo.response


def test_a_request_that_was_answered_before_the_outage_is_not_answered_out_of_the_spool(make_answer):
    first = make_answer("r1")
    answers_give([first])
    [earlier] = answers_spool([make_answer("r1")])
    assert earlier.response == first.memo.response


def test_a_request_that_cannot_be_looked_up_is_refused_and_its_neighbours_are_not(make_answer, monkeypatch):
    monkeypatch.setattr(spooling, "memo_find", away)
    plain = make_answer()
    refusal, none = answers_spool([make_answer("r1"), plain])
    assert isinstance(refusal, Unavailable)
    assert none is None
    with pytest.raises(Unavailable):
        first_response("key:carla", "r2", "d1")
    leave()
    assert spooling.left_behind_record() == 1
    assert is_recorded(plain)


def test_two_doors_give_one_answer_to_one_request(make_answer):
    """One thread records, the other spools, many times; whoever is first, both say the same."""
    doors = (answers_give, answers_spool)
    for number in range(12):
        answers = [make_answer(f"r{number}"), make_answer(f"r{number}")]
        said, start = {}, threading.Barrier(2)

        def ask(door, answer, said=said, start=start):
            start.wait()
            [first] = door([answer])
            said[door] = (first or answer.memo).response
            connections.close_all()

        threads = [threading.Thread(target=ask, args=pair) for pair in zip(doors, answers, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said[answers_give] == said[answers_spool]
    leave()
    spooling.left_behind_record()
    assert UserInteraction.objects.count() == 12
    assert spool.files(spool_folder(), spool.REFUSED) == []


def test_feedback_on_a_spooled_answer_is_asked_to_come_again(make_answer, carla):
    answer = make_answer(api_key_id=carla.key_id)
    answers_spool([answer])
    with pytest.raises(Unavailable) as refused:
        feedback_give(answer.rows[0].id, caller=carla, rating=5)
    assert refused.value.retry_after
    leave()
    spooling.left_behind_record()
    assert feedback_give(answer.rows[0].id, caller=carla, rating=5)[1]
    with pytest.raises(NotFound):
        feedback_give(make_answer().rows[0].id, caller=carla, rating=5)


def test_what_the_database_refuses_for_good_does_not_hold_up_the_others(make_answer, folder):
    good, bad, late = make_answer(), make_answer(api_key_id=10**6), make_answer("r1")
    answers_spool([good, bad, late])
    elsewhere = make_answer("r1")
    answers_record([elsewhere])  # on another machine, which does not see this spool
    leave()
    assert spooling.left_behind_record() == 1
    assert [is_recorded(answer) for answer in (good, bad, late, elsewhere)] == [True, False, False, True]
    [aside] = spool.files(folder, spool.REFUSED)
    reasons = [group.records[0]["refused"] for group in spool.groups(aside)]
    assert len(reasons) == 2
    assert "FOREIGN KEY" in reasons[0].upper()
    assert "request_id" in reasons[1]
    assert spooling.waiting().set_aside == 1


def test_what_another_release_wrote_is_set_aside(make_answer, folder):
    answers_spool([make_answer()])
    SPOOL._file.append(spool.line_of([{"rows": [{"id": "1", "created_at": "yesterday"}], "memo": None}]))
    leave()
    assert spooling.left_behind_record() == 1
    assert len(spool.files(folder, spool.REFUSED)) == 1


def test_the_thread_records_by_itself_what_waits(make_answer, monkeypatch, caplog):
    monkeypatch.setattr(spooling, "FIRST_PAUSE", 0.01)
    answers = [make_answer() for _ in range(5)]
    SPOOL.begin(OperationalError("gone\nDETAIL: a private word"))
    for answer in answers:
        SPOOL.write([answer])
    SPOOL._thread.join(20)
    assert not SPOOL.is_away
    assert all(map(is_recorded, answers))
    assert spooling.waiting() == (0, 0, "", 0)
    assert "private word" not in caplog.text
    assert caplog.text.count("The database is away") == 1


def test_the_thread_waits_for_the_database(make_answer, monkeypatch):
    looks = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(spooling, "FIRST_PAUSE", 0.01)

        def look(*_):
            looks.set()
            away()

        patch.setattr(spooling, "answers_record", look)
        SPOOL.begin(OperationalError("gone"))
        answers_spool([answer := make_answer()])
        assert looks.wait(10)
        assert SPOOL.is_away
    SPOOL._thread.join(20)
    assert is_recorded(answer)


def test_a_full_spool_says_so(make_answer, settings):
    settings.KALIMTAK_SPOOL_BYTES = 2_000
    answers_spool([make_answer()])
    assert spooling.can_go_on()
    with pytest.raises(Unavailable):
        answers_spool([make_answer(fields={"text": "x" * 2_000})])
    settings.KALIMTAK_SPOOL_BYTES = 64
    assert not spooling.can_go_on()
    assert spooling.waiting().answers == 1


def test_a_file_that_could_not_be_written_is_taken_back_first(make_answer, monkeypatch):
    kept, lost, later = make_answer(), make_answer(), make_answer()
    answers_spool([kept])

    def no_disk(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_disk)
        for _ in range(2):
            with pytest.raises(Unavailable):
                answers_spool([lost])
    answers_spool([later])
    leave()
    spooling.left_behind_record()
    assert [is_recorded(answer) for answer in (kept, lost, later)] == [True, False, True]


class Died(BaseException):
    pass


POINTS = ["spool.before_write", "spool.before_fsync", "spool.after_fsync", "spool.in_replay", "spool.before_removal"]


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["spool", "record", "empty"]), st.integers(0, 3), st.sampled_from(["", *POINTS])),
        max_size=8,
    )
)
def test_every_request_has_one_row_and_one_answer_whatever_dies_when(steps, make_answer):
    """Clients ask with four `request_id`s again and again; whoever gets an answer always gets the same."""
    UserInteraction.objects.all().delete()
    RequestMemo.objects.all().delete()
    given_to = {}
    with pytest.MonkeyPatch.context() as patch:
        for what, client, point in [*steps, ("empty", 0, "")]:

            def crashpoint(name, point=point):
                if name == point:
                    raise Died

            patch.setattr(spool, "crashpoint", crashpoint)
            try:
                if what == "empty":
                    leave()
                    spooling.left_behind_record()
                    continue
                answer = make_answer(f"r{client}")
                [first] = (answers_spool if what == "spool" else answers_give)([answer])
                given_to.setdefault(client, set()).add((first or answer.memo).response["results"][0]["interaction_id"])
            except Died:
                leave()
    assert all(len(answers) == 1 for answers in given_to.values())
    rows = {str(key) for key in UserInteraction.objects.values_list("pk", flat=True)}
    assert {each for answers in given_to.values() for each in answers} <= rows
    assert len(rows) == RequestMemo.objects.count()
    assert spooling.waiting().answers == 0
