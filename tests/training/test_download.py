"""Only the file itself, from the address that was checked."""

import http.server
import io
import socket
import ssl
import subprocess
import threading
import time

import pytest

from kalimtak.core.errors import InvalidInput, TooLarge
from training.download import download, is_public, public_address


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A host `data.example` on the loopback, with a certificate of its own."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=data.example"]
    command += ["-addext", "subjectAltName=DNS:data.example", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the openssl program")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved.csv":
                self.send_response(302)
                self.send_header("Location", "https://127.0.0.1/secret")
                self.end_headers()
                return
            if self.path == "/drip.csv":
                self.send_response(200)
                self.end_headers()
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
                return
            if self.path == "/cut.csv":
                self.send_response(200)
                self.send_header("Content-Length", "5000")
                self.end_headers()
                self.wfile.write(b"text,label\n")
                return
            if self.path == "/large.csv":
                self.send_response(200)
                self.send_header("Content-Length", str(10**12))
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"text,label\n" * 100)

        def log_message(self, *args):
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    serving.socket = tls.wrap_socket(serving.socket, server_side=True)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving.server_address[1], ssl.create_default_context(cafile=str(certificate))
    serving.shutdown()


@pytest.fixture
def fetch(server, monkeypatch):
    """Fetch from the server: the check of the address is left out, the port is led to the test's own."""
    port, context = server
    monkeypatch.setattr("training.download._Pinned.default_port", port)

    def fetch(url, limit=10_000):
        copy = io.BytesIO()
        size = download(
            url,
            copy,
            allowed=["data.example", "x.example"],
            limit=limit,
            context=context,
            resolve=lambda host, port: "127.0.0.1",
        )
        return size, copy.getvalue()

    return fetch


def test_the_file_is_copied(fetch):
    assert fetch("https://data.example/rows.csv") == (1_100, b"text,label\n" * 100)


def test_a_redirect_is_not_followed(fetch):
    with pytest.raises(InvalidInput, match="answered 302"):
        fetch("https://data.example/moved.csv")


def test_the_size_cap_holds_without_an_announced_length(fetch):
    with pytest.raises(TooLarge):
        fetch("https://data.example/rows.csv", limit=1_000)


def test_a_file_that_says_it_is_too_large_is_not_begun(fetch):
    with pytest.raises(TooLarge):
        fetch("https://data.example/large.csv")


def test_a_file_that_is_cut_off_is_refused(fetch):
    with pytest.raises(InvalidInput, match="cut off"):
        fetch("https://data.example/cut.csv")


def test_a_host_that_sends_a_byte_now_and_then_is_left_at_the_deadline(fetch, monkeypatch):
    monkeypatch.setattr("training.download.DEADLINE_SECONDS", 0.6)
    started = time.monotonic()
    with pytest.raises(InvalidInput, match="took over"):
        fetch("https://data.example/drip.csv")
    assert time.monotonic() - started < 5


def test_a_name_that_points_elsewhere_after_the_check_is_not_asked_again(fetch, monkeypatch):
    """DNS rebinding: what was looked up and checked is what is connected to."""
    asked = []

    def look_up(host, port, *args, **values):
        asked.append(host)
        raise AssertionError("the name was looked up once more")

    monkeypatch.setattr("training.download.socket.getaddrinfo", look_up)

    def connect(address, *args, **values):
        assert address[0] == "127.0.0.1"
        sock = socket.socket()
        sock.connect(address)
        return sock

    monkeypatch.setattr("training.download.socket.create_connection", connect)
    assert fetch("https://data.example/rows.csv")[0] == 1_100
    assert asked == []


@pytest.mark.parametrize("addresses", [["93.184.216.34", "10.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], []])
def test_one_private_address_among_a_hosts_is_one_too_many(monkeypatch, addresses):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr("training.download.socket.getaddrinfo", lambda *args, **values: found)
    with pytest.raises(InvalidInput, match="no public address"):
        public_address("data.example", 443)


def test_the_certificate_must_be_the_hosts(fetch):
    with pytest.raises(InvalidInput, match="could not be read"):
        fetch("https://x.example/rows.csv")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.64.0.1"),
        *("::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "2002:0a00:0001::1", "64:ff9b::a00:1"),
    ],
)
def test_private_addresses_are_not_public(address):
    assert not is_public(address)


def test_public_addresses_are():
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1::1")
