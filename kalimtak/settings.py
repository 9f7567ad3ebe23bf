"""The one settings file. Every knob is an environment variable listed in `.env.example`; odd values are refused."""

import os
import socket
from pathlib import Path
from typing import Any

import dj_database_url
import yaml

from kalimtak.core import env
from kalimtak.core.cache import redis_options
from kalimtak.core.sqlite import pragmas

BASE_DIR = Path(__file__).resolve().parent.parent
env.load_dotenv(BASE_DIR / ".env")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub is reached only by a run whose recipe asks for a hub model
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Where things lie ------------------------------------------------------------------------------------------------

KALIMTAK_VAR = env.folder("KALIMTAK_VAR", BASE_DIR / "var")
KALIMTAK_MODELS_STORE = env.folder("KALIMTAK_MODELS_STORE", BASE_DIR / "models_store")
KALIMTAK_MODELS_FILE = BASE_DIR / "models.yaml"
KALIMTAK_VAR.mkdir(parents=True, exist_ok=True)
(KALIMTAK_VAR / "logs").mkdir(exist_ok=True)


def generated_key(name: str) -> str:
    """A key that `setup` wrote to `var/keys/`; empty where it has not run yet."""
    path = KALIMTAK_VAR / "keys" / name
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


# Security --------------------------------------------------------------------------------------------------------

DEBUG = env.boolean("DEBUG")
SECRET_KEY = env.text("SECRET_KEY") or generated_key("secret_key")
if not SECRET_KEY and DEBUG:
    SECRET_KEY = "insecure-and-only-for-debugging-" + "0" * 32
KALIMTAK_SUBJECT_KEY = env.text("KALIMTAK_SUBJECT_KEY") or generated_key("subject_key")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS", subdomains=True)
KALIMTAK_TRUSTED_PROXIES = env.networks("KALIMTAK_TRUSTED_PROXIES")
KALIMTAK_CORS_ORIGINS = env.origins("KALIMTAK_CORS_ORIGINS")
KALIMTAK_HTTPS = env.boolean("KALIMTAK_HTTPS")
# The demo answers visitors who have not signed in.
KALIMTAK_ANONYMOUS = env.boolean("KALIMTAK_ANONYMOUS", (KALIMTAK_VAR / "demo.json").is_file())

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = KALIMTAK_HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if KALIMTAK_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = KALIMTAK_HTTPS
# `ProxyMiddleware` takes the header away from everybody but a trusted proxy.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if KALIMTAK_TRUSTED_PROXIES else None
SECURE_REDIRECT_EXEMPT = [r"^(livez|readyz)/?$"]  # probes come from inside, without TLS
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# Applications ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # before the admin, whose templates it replaces
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "kalimtak.admin_site.KalimtakAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "kalimtak.core",  # before django_q, whose command `qcluster` it replaces
    "django_q",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "registry",
    "interactions",
    "training",
    "inference",
    "kalimtak",
]

# For questions with a key all of it sees the first request of a connection with the same head, not each (decision 34).
MIDDLEWARE = [
    "kalimtak.core.middleware.ProxyMiddleware",
    "kalimtak.core.middleware.ContentSecurityPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "kalimtak.core.middleware.ApiMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "kalimtak.core.middleware.OutageMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "kalimtak.core.middleware.TimeZoneMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "kalimtak.urls"
WSGI_APPLICATION = "kalimtak.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Database and cache ----------------------------------------------------------------------------------------------

KALIMTAK_DATABASE_POOL = env.integer("KALIMTAK_DATABASE_POOL", 20, low=4, high=1000)
DATABASE_URL = env.text("DATABASE_URL", f"sqlite:///{KALIMTAK_VAR / 'kalimtak.sqlite3'}")
DATABASES: dict[str, Any] = {"default": dj_database_url.parse(DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["ENGINE"] = "kalimtak.core.sqlite"
    DATABASES["default"]["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": pragmas()}
    DATABASES["default"]["CONN_MAX_AGE"] = None
    DATABASES["default"]["TEST"] = {"NAME": KALIMTAK_VAR / "test.sqlite3"}  # a file: threads and processes share it
else:
    # What the URL says in its query wins. A host that swallows packets must not hold a request for minutes.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 3,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,  # milliseconds that sent data may stay unacknowledged
    } | DATABASES["default"].get("OPTIONS", {})
    if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        # Threads share a pool. Not so workers: they fork, and a pool's sockets would be used by two processes at once.
        # A connection that fails is given up quickly, since psycopg's own patience would outlast the outage.
        DATABASES["default"]["OPTIONS"]["pool"] = {
            "min_size": 1,
            "max_size": KALIMTAK_DATABASE_POOL,
            "timeout": 3,
            "reconnect_timeout": 1,
        }
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # after a restart of the server the pool is full of dead ones

REDIS_URL = env.text("REDIS_URL")
# A file that the processes of this machine share, so that a rate limit holds across web workers.
CACHE_FILE = {"BACKEND": "kalimtak.core.cache.SqliteCache", "LOCATION": str(KALIMTAK_VAR / "cache.sqlite3")}
CACHES: dict[str, Any] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": redis_options(),
    }
    if REDIS_URL
    else CACHE_FILE,
    "queue": CACHE_FILE,  # the heartbeat of each machine's workers: none of Redis's business
}

# Rate limits (django-ratelimit, wrapped by kalimtak.core.ratelimit) ------------------------------------------------

RATELIMIT_ENABLE = env.boolean("KALIMTAK_RATELIMIT_ENABLE", True)
KALIMTAK_RATELIMIT_KEY = env.rate("KALIMTAK_RATELIMIT_KEY", "6000/m")
KALIMTAK_RATELIMIT_ANON = env.rate("KALIMTAK_RATELIMIT_ANON", "60/m")
KALIMTAK_RATELIMIT_LOGIN = env.rate("KALIMTAK_RATELIMIT_LOGIN", "10/m")
RATELIMIT_IP_META_KEY = "kalimtak.core.ratelimit.client_address"
# E003 and W001 of django-ratelimit only know the cache back ends of its own day: both of ours count atomically.
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001"]

# Work queue --------------------------------------------------------------------------------------------------------

Q_CLUSTER: dict[str, Any] = {
    "name": "default",
    "orm": "default",
    "cache": "queue",
    "workers": 2,
    "queue_limit": 1,
    "bulk": 1,
    "timeout": 600,
    "retry": 660,
    "max_attempts": 1,
    "ack_failures": True,
    "catch_up": False,
    "recycle": 200,
    "save_limit": 100,
    "poll": 0.5,
    "label": "Queue",
    "ALT_CLUSTERS": {
        name: {"workers": 2, "timeout": 60, "retry": 120, "scheduler": False} for name in ("training", "gpu")
    },
}
KALIMTAK_JOBS = {  # kind → (handler, cluster, long: runs in a supervisor of its own)
    "curate": ("training.tasks.curate", "default", True),
    "rank": ("training.tasks.rank", "default", True),
    "import": ("training.tasks.dataset_import", "default", True),
    "import_interactions": ("training.tasks.import_interactions", "default", True),
    "examine": ("training.tasks.examine", "default", True),
    "train": ("training.tasks.train", "training", True),
    "fine_tune": ("training.tasks.fine_tune", "default", False),
    "evaluate": ("training.tasks.evaluate", "training", True),
    "cascade": ("training.tasks.cascade", "training", True),
}
KALIMTAK_CARETAKERS = ["interactions.spooling.left_behind_record"]  # what the reaper's tick calls besides

# Limits and policy --------------------------------------------------------------------------------------------------

KALIMTAK_DATASET_HOSTS = env.words("KALIMTAK_DATASET_HOSTS")
KALIMTAK_MAX_UPLOAD = env.size("KALIMTAK_MAX_UPLOAD", 2 * 1024**3)
KALIMTAK_DISK_RESERVE = env.size("KALIMTAK_DISK_RESERVE", 256 * 1024**2)
KALIMTAK_SPOOL_BYTES = env.size("KALIMTAK_SPOOL_BYTES", 64 * 1024**2)
KALIMTAK_RETENTION_DAYS = env.integer("KALIMTAK_RETENTION_DAYS", 90, low=1, high=36_500)
KALIMTAK_METRICS_NETWORKS = env.networks("KALIMTAK_METRICS_NETWORKS", ["127.0.0.0/8", "::1/128"])
KALIMTAK_DEVICE = env.choice("KALIMTAK_DEVICE", "auto", ["auto", "cpu", "cuda", "mps"])
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", os.cpu_count() or 1, low=1, high=1024)
KALIMTAK_PIN_WORKERS = env.boolean("KALIMTAK_PIN_WORKERS", default=True)
KALIMTAK_HOST = socket.gethostname()
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024**2
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_TEMP_DIR = env.text("KALIMTAK_UPLOAD_TMP") or None

# API ----------------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "kalimtak.core.auth.ApiKeyAuthentication",
        "kalimtak.core.auth.StaffSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["kalimtak.core.auth.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "kalimtak.core.api.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Kalimtak",
    "DESCRIPTION": "Text models that learn from the people who use them.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
}

# Interface ----------------------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ar", "العربية")]
TIME_ZONE = env.text("TIME_ZONE", "UTC")
USE_TZ = True
USE_I18N = True
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "/"
STATIC_URL = "static/"
STATIC_ROOT = KALIMTAK_VAR / "static"
STATICFILES_DIRS = [BASE_DIR / "kalimtak" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
UNFOLD = {
    "SITE_TITLE": "Kalimtak",
    "SITE_HEADER": "Kalimtak",
    "SITE_SYMBOL": "all_inclusive",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": True,
    "ENVIRONMENT": None,
    "DASHBOARD_CALLBACK": "kalimtak.admin_site.dashboard",
    "STYLES": ["kalimtak.admin_site.stylesheet"],
    "SCRIPTS": ["kalimtak.admin_site.script"],
    "SIDEBAR": {"show_search": True, "navigation": "kalimtak.admin_site.navigation"},
}

# Logging ------------------------------------------------------------------------------------------------------------

LOGGING = yaml.safe_load((BASE_DIR / "logging.yaml").read_text(encoding="utf-8"))
