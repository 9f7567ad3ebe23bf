"""How gunicorn serves us: one process per core, each with its own loaded models and batcher.

Nothing is preloaded, since the batcher's thread would not survive the fork. `max_requests` is left alone: a restarted
worker would have to load its models again.
"""

import os
from pathlib import Path
from typing import Any

from kalimtak.core import cores, env

env.load_dotenv(Path(__file__).resolve().parent.parent / ".env")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken by processes

host = env.text("HOST", "127.0.0.1")
port = env.integer("PORT", 8000, low=1, high=65_535)
bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

workers = env.integer("WEB_CONCURRENCY", os.cpu_count() or 1, low=1, high=1024)
pinned = env.boolean("KALIMTAK_PIN_WORKERS", default=True)
worker_class = "kalimtak.worker.Worker"
threads = 16
keepalive = 30
timeout = 60
graceful_timeout = 25
control_socket_disable = True
# gunicorn believes the forwarding headers of every process on this machine; whom to believe is for Django to say.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}

# A statement, a lock or an idle transaction that outlasts these ends with 503 instead of holding a thread (PostgreSQL).
# Workers have no such limits: an import may take its time. What DATABASE_URL says in `options` wins.
os.environ.setdefault(
    "PGOPTIONS", "-c statement_timeout=20s -c lock_timeout=3s -c idle_in_transaction_session_timeout=60s"
)

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "kalimtak.core.logs.LineFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["console"], "propagate": False}},
}


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker a core, if there are as many as workers; in gunicorn's master, which knows them all."""
    held = [getattr(other, "core", None) for other in server.WORKERS.values()]
    worker.core = cores.for_next(held, server.num_workers) if pinned else None


def post_worker_init(worker: Any) -> None:
    """Load the live versions and all views before the first request; without a database `/readyz` says so."""
    from django.urls import resolve

    from inference.services import warm
    from kalimtak.core.errors import KalimtakError

    resolve("/api/predict")
    try:
        warm()
    except KalimtakError as error:
        worker.log.warning("Started without models: %s", error.message)
