"""The audit chain says where it was touched."""

import pytest
from django.db import transaction

from kalimtak.core import audit
from kalimtak.core.models import AuditEvent


@pytest.fixture
def chain(db):
    return [audit.record("olga", "version.deploy", f"emotion/{n}", share=100) for n in range(1, 4)]


def test_a_whole_chain_verifies(chain):
    assert audit.verify() == []
    assert [event.previous_hash for event in chain[1:]] == [event.hash for event in chain[:-1]]


def test_a_changed_row_is_named(chain):
    AuditEvent.objects.filter(pk=chain[1].pk).update(actor="nadia")
    assert audit.verify() == [f"Event {chain[1].pk}: its content was changed."]


def test_a_removed_row_is_named(chain):
    AuditEvent.objects.filter(pk=chain[1].pk).delete()
    assert audit.verify() == [f"Event {chain[2].pk}: the event before it was changed or removed."]


def test_an_act_that_is_undone_leaves_no_event(chain):
    with pytest.raises(RuntimeError), transaction.atomic():
        audit.record("olga", "version.deploy", "emotion/9")
        raise RuntimeError
    assert AuditEvent.objects.count() == 3
