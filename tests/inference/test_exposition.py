"""`/metrics`: who may read it, and that its figures are the spool's."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from interactions import spooling


def figures(response):
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def test_prometheus_reads_how_the_process_and_the_spool_stand(client, emotion, settings, tmp_path, monkeypatch):
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    told = figures(response)
    assert (told["kalimtak_spool_answers"], told["kalimtak_spool_active"]) == (0, 0)
    assert told["kalimtak_waiting_texts"] == 0
    waiting = spooling.Waiting(answers=3, bytes=512, since="2026-01-02T03:04:05+00:00", set_aside=1)
    monkeypatch.setattr(spooling, "waiting", lambda: waiting)
    told = figures(client.get("/metrics/"))
    assert (told["kalimtak_spool_answers"], told["kalimtak_spool_bytes"]) == (3, 512)
    assert told["kalimtak_spool_set_aside_files"] == 1
    assert told["kalimtak_spool_oldest_seconds"] > 3_600


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "networks", "status"),
    [
        ("127.0.0.1", None, [], ["127.0.0.0/8"], 200),
        ("203.0.113.9", None, [], ["127.0.0.0/8"], 403),
        ("203.0.113.9", None, [], ["203.0.113.0/24"], 200),
        ("127.0.0.1", "203.0.113.9", [], ["127.0.0.0/8"], 403),  # a proxy beside us that nobody named
        ("127.0.0.1", "203.0.113.9", ["127.0.0.1"], ["127.0.0.0/8"], 403),
        ("127.0.0.1", "10.0.0.7", ["127.0.0.1"], ["10.0.0.0/8"], 200),
        ("", None, [], ["127.0.0.0/8"], 403),  # through a socket, so from anywhere
    ],
)
def test_only_the_networks_named_read_it(client, emotion, settings, peer, forwarded, proxies, networks, status):
    settings.KALIMTAK_TRUSTED_PROXIES, settings.KALIMTAK_METRICS_NETWORKS = proxies, networks
    more = {} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded}
    response = client.get("/metrics", REMOTE_ADDR=peer, **more)
    assert response.status_code == status
    if status == 403:
        assert response.json()["error"]["code"] == "forbidden"
