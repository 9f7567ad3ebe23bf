"""System checks of the installation itself: `manage.py check` names each fault with its remedy."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection

from kalimtak.core.sqlite import USES_WHEEL, Database, wal_is_safe


@register()
def keys_are_present(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Without the subject key nobody could be recognised again, and a lost one cannot be replaced."""
    if settings.KALIMTAK_SUBJECT_KEY or settings.DEBUG:
        return []
    return [
        Error(
            "KALIMTAK_SUBJECT_KEY is not set",
            hint="Run `manage.py setup`, which generates it, or set it in the environment.",
            id="kalimtak.E001",
        )
    ]


@register()
def sqlite_is_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """SQLite 3.7.0 to 3.51.2 may corrupt a WAL database that two processes write to."""
    if connection.vendor != "sqlite" or (USES_WHEEL and wal_is_safe(Database.sqlite_version_info)):
        return []
    return [
        Warning(
            f"SQLite {Database.sqlite_version} may corrupt a WAL database; the slower rollback journal is used",
            hint="Install the pysqlite3 wheel named in requirements.txt.",
            id="kalimtak.W001",
        )
    ]


@register(Tags.security, deploy=True)
def proxy_is_named(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The web server speaks plain HTTP: only a proxy can say that the visitor came over TLS."""
    if not settings.KALIMTAK_HTTPS or settings.KALIMTAK_TRUSTED_PROXIES:
        return []
    return [
        Warning(
            "KALIMTAK_HTTPS=1 without KALIMTAK_TRUSTED_PROXIES: every page is sent to HTTPS for ever",
            hint="Name the address of the proxy that ends TLS.",
            id="kalimtak.W002",
        )
    ]
