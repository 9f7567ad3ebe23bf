"""How gunicorn serves us: one process per core, each with its own loaded models and batcher.

Nothing is preloaded, since the batcher's thread would not survive the fork. `max_requests` is left alone: a restarted
worker would have to load its models again.
"""

import os
from pathlib import Path
from typing import Any

from kalimtak.core import env

env.load_dotenv(Path(__file__).resolve().parent.parent / ".env")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken by processes

host = env.text("HOST", "127.0.0.1")
port = env.integer("PORT", 8000, low=1, high=65_535)
bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

workers = env.integer("WEB_CONCURRENCY", os.cpu_count() or 1, low=1, high=1024)
worker_class = "gthread"
threads = 16
keepalive = 30
timeout = 60
graceful_timeout = 25
control_socket_disable = True

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "kalimtak.core.logs.LineFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["console"], "propagate": False}},
}


def post_worker_init(worker: Any) -> None:
    """Load the live versions before the first request; without a database the worker says so in `/readyz`."""
    from inference.services import warm
    from kalimtak.core.errors import KalimtakError

    try:
        warm()
    except KalimtakError as error:
        worker.log.warning("Started without models: %s", error.message)
