"""A production installation as docs/operations.md describes it: no warning of Django's, and headers that hold."""

import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.test import Client
from requests.adapters import HTTPAdapter

from inference import services
from tests.installation import ROOT, Installation

CHROMIUM = Path("/usr/bin/chromium")
HOST = "kalimtak.example.org"


@pytest.fixture(autouse=True)
def stopped():
    """A page may have started the thread that watches the deployments."""
    yield
    services.shut_down()


def documented_environment() -> dict[str, str]:
    """The `.env` of the worked example in docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    block = re.search(r"```ini\n# /srv/kalimtak/\.env\n(.*?)```", page, re.DOTALL)
    assert block, "the worked example is gone"
    lines = [line for line in block[1].splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def check_deploy(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`manage.py check --deploy` with this environment alone; it reaches no server."""
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    keys = {name: secrets.token_urlsafe(48) for name in ("SECRET_KEY", "KALIMTAK_SUBJECT_KEY")}
    places = {"KALIMTAK_VAR": str(folder / "var"), "KALIMTAK_MODELS_STORE": str(folder / "store")}
    environment = environment | keys | places | {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_the_documented_environment_passes_the_deployment_check_without_a_warning(tmp_path):
    done = check_deploy(documented_environment(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues" in done.stdout


def test_a_proxy_that_was_forgotten_is_warned_of(tmp_path):
    done = check_deploy(documented_environment() | {"KALIMTAK_TRUSTED_PROXIES": ""}, tmp_path)
    assert done.returncode != 0
    assert "kalimtak.W002" in done.stderr


@pytest.mark.own_servers  # or rather none: it is only imported
@pytest.mark.parametrize("arguments", [["manage.py", "shell", "--command"], ["-c"]], ids=["commands", "web"])
def test_garbage_is_collected_again_once_everything_is_imported(tmp_path, arguments):
    installation = Installation(tmp_path / "installation")
    source = "import kalimtak.wsgi, gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    command = [sys.executable, *arguments, source]
    done = subprocess.run(command, cwd=ROOT, env=installation.environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[-2:] == ["True", "True"], done.stderr
    installation.close()


@pytest.mark.parametrize("name", ["KALIMTAK_CORS_ORIGINS", "CSRF_TRUSTED_ORIGINS"])
@pytest.mark.parametrize("value", ["*", "example.org", "https://example.org/path", "https://*"])
def test_an_origin_that_is_none_or_all_is_refused_at_start(name, value, tmp_path):
    done = started_with({name: value}, tmp_path)
    assert done.returncode != 0
    assert name in done.stderr.splitlines()[-1]


def test_subdomains_may_post_forms_and_may_not_call_the_api(tmp_path):
    assert started_with({"CSRF_TRUSTED_ORIGINS": "https://*.example.org"}, tmp_path).returncode == 0
    assert started_with({"KALIMTAK_CORS_ORIGINS": "https://*.example.org"}, tmp_path).returncode != 0


def started_with(variables, folder):
    environment = {"PATH": "/usr/bin:/bin", "KALIMTAK_VAR": str(folder)} | variables
    program = "import kalimtak.settings"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory):
    """A web server behind a proxy on this machine that ends TLS."""
    installation = Installation(
        tmp_path_factory.mktemp("proxied"),
        KALIMTAK_HTTPS="1",
        KALIMTAK_TRUSTED_PROXIES="127.0.0.1",
        ALLOWED_HOSTS=f"{HOST},127.0.0.1",
        CSRF_TRUSTED_ORIGINS=f"https://{HOST}",
        WEB_CONCURRENCY="1",
    )
    installation.manage("setup")
    installation.manage("createsuperuser", "--noinput", "--username", "olga", "--email", "olga@example.org")
    installation.start_web()
    yield installation
    installation.close()


def get(installation: Installation, path: str, host: str = HOST, **headers: str) -> requests.Response:
    return requests.get(installation.url + path, headers={"Host": host} | headers, allow_redirects=False, timeout=30)


class Stranger(HTTPAdapter):
    """Connects from another address of this machine (Linux lets everybody use all of 127.0.0.0/8)."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, source_address=("127.0.0.2", 0), **options)


def get_as_stranger(installation: Installation, path: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.mount("http://", Stranger())
        return session.get(installation.url + path, headers={"Host": HOST} | headers, allow_redirects=False, timeout=30)


HTTPS = {"X-Forwarded-Proto": "https"}


@pytest.mark.slow
def test_a_page_over_tls_comes_with_every_header_that_protects_it(behind_proxy):
    response = get(behind_proxy, "/admin/login/", **HTTPS)
    assert response.status_code == 200
    expected = {
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    assert {name: response.headers.get(name) for name in expected} == expected
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("csrftoken=") and "Secure" in cookie and "SameSite=Lax" in cookie


@pytest.mark.slow
def test_the_session_cookie_is_for_tls_and_no_script(behind_proxy):
    with requests.Session() as session:
        headers = {"Host": HOST, **HTTPS}
        page = session.get(f"{behind_proxy.url}/admin/login/", headers=headers, timeout=30)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
        form = {"username": "olga", "password": "a-password-for-the-tests", "csrfmiddlewaretoken": token}
        cookies = {"csrftoken": page.cookies["csrftoken"]}

        def post(origin: str, next_page: str = "/admin/") -> requests.Response:
            return requests.post(
                f"{behind_proxy.url}/admin/login/",
                form | {"next": next_page},
                headers=headers | {"Origin": origin},
                cookies=cookies,
                allow_redirects=False,
                timeout=30,
            )

        assert post("https://evil.example").status_code == 403, "CSRF: another origin"
        assert post(f"http://{HOST}").status_code == 403, "CSRF: without TLS"
        response = post(f"https://{HOST}")
        assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
        session_cookie = next(part for part in response.headers["Set-Cookie"].split(", ") if "sessionid=" in part)
        assert "Secure" in response.headers["Set-Cookie"] and "HttpOnly" in response.headers["Set-Cookie"]
        assert session_cookie
        for elsewhere in ("https://evil.example/", "//evil.example", r"\\evil.example", "javascript:alert(1)"):
            response = post(f"https://{HOST}", elsewhere)
            assert response.status_code == 302
            assert "evil" not in response.headers["Location"] and "javascript" not in response.headers["Location"]


@pytest.mark.slow
def test_plain_http_is_sent_to_tls_and_only_the_proxy_can_say_that_it_was_tls(behind_proxy):
    for headers in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Ssl": "on"}, {"X-Forwarded-Protocol": "ssl"}):
        response = get(behind_proxy, "/", **headers)
        assert (response.status_code, response.headers["Location"]) == (301, f"https://{HOST}/"), headers
    assert get(behind_proxy, "/", **HTTPS).status_code == 200
    assert get_as_stranger(behind_proxy, "/", **HTTPS).status_code == 301
    for probe in ("/livez", "/readyz"):
        assert get_as_stranger(behind_proxy, probe).status_code == 200, "probes come from inside, without TLS"


@pytest.mark.slow
def test_another_host_is_refused_whatever_a_forwarding_header_says(behind_proxy):
    for path in ("/", "/admin/login/", "/api/models"):
        response = get(behind_proxy, path, host="evil.example", **HTTPS)
        assert response.status_code == 400, path
        assert "evil" not in response.text
    response = get(behind_proxy, "/admin/", **HTTPS, **{"X-Forwarded-Host": "evil.example"})
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/login/?next=/admin/")


# The policy in a browser --------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "relaxed"), [("/", set()), ("/api/models", set()), ("/nothing", set()), ("/api/docs", {"style"})]
)
def test_every_answer_has_a_policy_no_laxer_than_its_page_needs(path, relaxed):
    policy = Client().get(path)["Content-Security-Policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == directives["base-uri"] == "'none'"
    assert {name[:-4] for name, value in directives.items() if "unsafe" in value} == relaxed


PAGES = [
    "/",
    "/api/docs",
    "/admin/",
    "/admin/registry/classifier/",
    "/admin/registry/classifier/add/",
    "/admin/training/trainingdataitem/",
    "/admin/training/dataset/add/",
    "/admin/auth/user/add/",
    "/admin/core/apikey/add/",
    "/admin/core/job/",
]


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed at /usr/bin/chromium")
@pytest.mark.django_db(transaction=True)
def test_no_page_breaks_its_own_policy(live_server, settings):
    """Visits every kind of page; the browser reports what the policy forbade, and what a script could not do."""
    from playwright.sync_api import sync_playwright

    settings.KALIMTAK_ANONYMOUS = True
    client = Client()
    client.force_login(User.objects.create_superuser("olga", "olga@example.org"))
    session = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}
    faults: list[str] = []
    with pytest.MonkeyPatch.context() as environment, sync_playwright() as playwright:
        environment.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context()
        context.add_cookies([session])
        page = context.new_page()
        page.on(
            "console", lambda message: faults.append(f"{page.url}: {message.text}") if message.type == "error" else 0
        )
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        for path in PAGES:
            response = page.goto(live_server.url + path, wait_until="networkidle")
            assert response.status == 200, path
        page.goto(live_server.url + "/api/docs")
        page.locator(".opblock").first.wait_for()
        page.evaluate(
            "const s = document.createElement('script'); s.text = 'window.owned = 1'; document.head.append(s)"
        )
        assert page.evaluate("window.owned") is None, "the policy is in force"
        assert len(faults) == 1 and "Content Security Policy" in faults.pop()
        browser.close()
    assert faults == []
