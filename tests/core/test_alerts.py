"""Alerts: one open row for each thing that is wrong, closed by whoever sees to it or when it is over."""

import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from kalimtak.core import alerts
from kalimtak.core.errors import Conflict
from kalimtak.core.models import Alert, AuditEvent

pytestmark = pytest.mark.django_db


def test_the_same_thing_again_is_counted_with_its_newest_words():
    alerts.alert_open("version_load", "emotion", "first")
    alerts.alert_open("version_load", "emotion", "second")
    alerts.alert_open("version_load", "intent", "x" * 900)
    assert list(Alert.objects.order_by("pk").values_list("target", "count")) == [("emotion", 2), ("intent", 1)]
    assert Alert.objects.get(target="emotion").message == "second"


def test_what_is_over_is_closed_and_opens_anew():
    alerts.alert_open("version_load", "emotion", "first")
    assert alerts.alert_over("version_load", "emotion")
    assert not alerts.alert_over("version_load", "emotion")
    assert Alert.objects.get().closed_by == "system"
    alerts.alert_open("version_load", "emotion", "again")
    assert [alert.message for alert in alerts.alerts_open()] == ["again"]


def test_closing_is_audited_and_done_once():
    alerts.alert_open("version_load", "emotion", "first")
    alert = Alert.objects.get()
    alerts.alert_close(alert, actor="olga")
    with pytest.raises(Conflict):
        alerts.alert_close(alert, actor="olga")
    assert AuditEvent.objects.filter(action="alert.close").count() == 1


@pytest.mark.django_db(transaction=True)
def test_processes_that_notice_it_together_open_one():
    barrier = threading.Barrier(4)

    def notice():
        barrier.wait(10)
        alerts.alert_open("version_load", "emotion", "gone")
        connection.close()

    threads = [threading.Thread(target=notice) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Alert.objects.get().count == 4


def test_the_first_page_shows_them_and_the_page_closes_them():
    olga = User.objects.create_superuser("olga")
    client = Client()
    client.force_login(olga)
    alerts.alert_open("version_load", "emotion", "emotion/2 <b>cannot</b> be loaded")
    alert = Alert.objects.get()
    page = reverse("admin:core_alert_change", args=[alert.pk])
    overview = client.get(reverse("admin:index")).content.decode()
    assert page in overview
    assert "&lt;b&gt;cannot" in overview
    assert client.get(reverse("admin:core_alert_changelist"), {"state": "open"}).status_code == 200
    close = reverse("admin:core_alert_close", args=[alert.pk])
    assert client.get(page).content.decode().count(close) == 1
    client.post(close)
    assert Alert.objects.get().closed_by == "olga"
    assert page not in client.get(reverse("admin:index")).content.decode()
