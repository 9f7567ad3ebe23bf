"""What makes an installation ready: keys, tables, static files, roles, schedules, classifiers. Safe to repeat."""

import secrets
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.management import call_command

from kalimtak.roles import roles_ensure
from kalimtak.schedules import schedules_ensure
from registry.config import models_sync
from registry.services import staging_sweep

Say = Callable[[str], None]
KEYS = {"secret_key": "SECRET_KEY", "subject_key": "KALIMTAK_SUBJECT_KEY"}


def prepare(say: Say, *, actor: str = "setup") -> None:
    """Bring this installation up to date with the code; raises what the failing step raises."""
    for name in keys_ensure():
        say(f"generated {name} in {settings.KALIMTAK_VAR / 'keys'} (keep it with your backups)")
    settings.KALIMTAK_MODELS_STORE.mkdir(parents=True, exist_ok=True)
    call_command("migrate", interactive=False, verbosity=0)
    say("tables are up to date")
    call_command("collectstatic", interactive=False, verbosity=0)
    say("static files are collected")
    staging_sweep()  # what crashed attempts left half-built
    roles_ensure()
    made = schedules_ensure()
    say(f"schedules made: {', '.join(made)}" if made else "schedules are in place")
    report = models_sync(settings.KALIMTAK_MODELS_FILE, actor=actor)
    say(f"classifiers: {len(report.created)} new, {len(report.updated)} changed, {len(report.unchanged)} unchanged")
    for slug in report.missing:
        say(f"classifier {slug} is no longer in {settings.KALIMTAK_MODELS_FILE.name}; it is kept")


def keys_ensure() -> list[str]:
    """Generate the keys that neither the environment nor `var/keys/` holds (mode 0600); their names."""
    made = []
    for file_name, setting in KEYS.items():
        if getattr(settings, "_wrapped", None) is not None and _value(setting):
            continue
        key = secrets.token_urlsafe(48)
        write_private(settings.KALIMTAK_VAR / "keys" / file_name, key)
        setattr(settings, setting, key)
        made.append(setting)
    return made


def _value(setting: str) -> str:
    """A setting that Django refuses to read while it is empty."""
    return str(settings._wrapped.__dict__.get(setting) or "")  # type: ignore[misc]


def write_private(path: Path, text: str) -> None:
    """Write `text` aside with mode 0600, then rename it to `path`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
