"""Deployment facts, read once from the environment. A run's choices live in its own frozen dataclass, not here."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from platform_site import environment
from platform_site.secret import secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = environment.folder("PLATFORM_HOME", BASE_DIR / "var")

PRODUCTION = environment.choice("PLATFORM_ENV", "development", {"development", "production"}) == "production"
DEBUG = environment.flag("DEBUG", False)
SECRET_KEY = secret_key(HOME, PRODUCTION)
# This machine's own names are always among them: whoever watches the platform asks /readyz at one.
ALLOWED_HOSTS = [
    *environment.names("ALLOWED_HOSTS", [] if PRODUCTION else ["testserver"]),
    "127.0.0.1",
    "localhost",
    "[::1]",
]
PUBLIC_URL = environment.url("PUBLIC_URL", "http://127.0.0.1:8000")
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
# Whose pages may use the API from a browser, beside our own.
CORS_ORIGINS = environment.origins("CORS_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.humanize",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_prometheus",
    "django_q",
    "common",
    "accounts",
    "datasets",
    "training",
    "inference",
    "platform_site",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "platform_site.middleware.Origin",
    "platform_site.middleware.AdminScope",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "platform_site.urls"
ASGI_APPLICATION = "platform_site.asgi.application"
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

# ---------------------------------------------------------------------------------------------- the two engines

# Migrations run as the owner (the login of DATABASE_URL); everything else as platform_app, which row level security
# holds. The `migrate` command drops the option for itself: before the first migration the role does not exist.
DATABASES: dict[str, dict[str, Any]] = {"default": environment.database("DATABASE_URL")}
DATABASES["default"]["CONN_MAX_AGE"] = 600
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# A process that was stopped inside a transaction holds its locks for half a minute, and not until it is found. Nobody
# waits longer than some seconds for a lock, whoever holds it: all threads would come to wait behind one row.
DATABASES["default"]["OPTIONS"]["options"] = (
    "-c role=platform_app -c idle_in_transaction_session_timeout=30000 -c lock_timeout=5000"
)
DATABASES["default"]["TEST"] = {"NAME": "test_platform"}

REDIS_URL = environment.redis("REDIS_URL")
CHANNEL_LAYERS: dict[str, Any] = {}  # live events come from the database, woken through Redis: a channel layer loses

# One cluster each, named for the app whose jobs it carries, and its worker processes.
QUEUES = {
    "datasets": environment.number("DATASET_WORKERS", 1, minimum=1, maximum=64),
    "training": environment.number("TRAINING_WORKERS", 1, minimum=1, maximum=64),
}
# django-q2 is the doorbell, not the record: nothing is kept, retried, or scheduled by it.
Q_CLUSTER = {
    "name": "platform",
    "broker_class": "common.doorbell.Doorbell",
    "workers": 1,
    "timeout": 30 * 86_400,  # it warns without one; a job's own limits are its business
    "retry": 31 * 86_400,
    "max_attempts": 1,
    "save_limit": -1,
    "scheduler": False,
    "catch_up": False,
    "log_level": "WARNING",
    "ALT_CLUSTERS": {queue: {"workers": workers} for queue, workers in QUEUES.items()},
}
CONCURRENT_VERSIONS = environment.number("CONCURRENT_VERSIONS", 2, minimum=1)
# An HTML report for each version, by Evidently: some seconds of a dataset worker that is not needed else, and 420 MB for as long.
REPORTS = environment.flag("REPORTS", True)
CONCURRENT_RUNS = environment.number("CONCURRENT_RUNS", 2, minimum=1)
# What runs will take is told before they start: each version's tokens are counted, and each host's device is measured once a boot.
ESTIMATES = environment.flag("ESTIMATES", True)

# ---------------------------------------------------------------------------------------------- quotas

# What an organization may use that has no quota of its own in the admin.
QUOTA_STORAGE_BYTES = environment.number("QUOTA_STORAGE_BYTES", 100 * 2**30)
QUOTA_CONCURRENT_RUNS = environment.number("QUOTA_CONCURRENT_RUNS", 50, maximum=2**31 - 1)
QUOTA_TRAINING_MINUTES_PER_MONTH = environment.number("QUOTA_TRAINING_MINUTES_PER_MONTH", 10_000, maximum=2**31 - 1)
QUOTA_TOKENS_PER_DAY = environment.number("QUOTA_TOKENS_PER_DAY", 5_000_000)
REQUESTS_PER_MINUTE = environment.number("REQUESTS_PER_MINUTE", 1_200, minimum=1, maximum=2**31 - 1)

# ---------------------------------------------------------------------------------------------- mail

_MAIL_SERVER = environment.mail_server("EMAIL_URL")
EMAIL_BACKEND = _MAIL_SERVER.backend
EMAIL_HOST, EMAIL_PORT = _MAIL_SERVER.host, _MAIL_SERVER.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL_SERVER.user, _MAIL_SERVER.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL_SERVER.starttls, _MAIL_SERVER.tls
EMAIL_TIMEOUT = 10.0  # for each answer of the server
DEFAULT_FROM_EMAIL = environment.mailbox("MAIL_FROM", "Fine-tuning platform <platform@localhost>")

# ---------------------------------------------------------------------------------------------- files

GCS_BUCKET = environment.text("GCS_BUCKET")
STORAGE_ROOT = HOME / "storage"
STORAGES: dict[str, dict[str, Any]] = {
    "default": (
        {
            "BACKEND": "storages.backends.gcloud.GoogleCloudStorage",
            "OPTIONS": {"bucket_name": GCS_BUCKET, "file_overwrite": False},
        }
        if GCS_BUCKET
        else {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": STORAGE_ROOT}}
    ),
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
ATTEMPTS_ROOT = HOME / "attempts"
INCOMING_ROOT = HOME / "incoming"
CACHED_ADAPTERS_ROOT = HOME / "cache" / "adapters"
QUANTIZED_BASES_ROOT = HOME / "cache" / "bases"
COMPILED_ROOT = HOME / "cache" / "compiled"
PACES_FILE = HOME / "cache" / "paces"
# A model of spaCy's that finds names of people, to be masked: an installed package, or a folder. None is shipped.
PII_NAMES_MODEL = environment.package_or_folder("PII_NAMES_MODEL")
MAX_UPLOAD_BYTES = environment.number("MAX_UPLOAD_BYTES", 10 * 2**30, minimum=1)
UPLOAD_LIFETIME = timedelta(hours=24)
UNUSED_UPLOAD_LIFETIME = timedelta(days=7)  # once it has arrived, and until a dataset is made from it

STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_AUTOREFRESH = not PRODUCTION

# ---------------------------------------------------------------------------------------------- who

AUTH_USER_MODEL = "accounts.User"
LOGIN_REDIRECT_URL = "/admin/"  # who opens /admin/login/ itself names no page to go on to
# Between the request to delete an organization or an account and its deletion.
CHECKPOINT_DAYS = environment.number("CHECKPOINT_DAYS", 30, maximum=3650)
CLOSING_DAYS = environment.number("CLOSING_DAYS", 7, maximum=3650)
PASSWORD_HASHERS = ["django.contrib.auth.hashers.BCryptSHA256PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "name"]},
    },
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# An address that nobody has shown to be theirs: may one work with it?
REQUIRE_VERIFIED_EMAIL = environment.flag("REQUIRE_VERIFIED_EMAIL", False)
# How often what can be guessed, or annoys, may be tried; counted in Redis.
LOGINS_PER_ACCOUNT = environment.number("LOGINS_PER_ACCOUNT", 20, minimum=1)  # in a quarter of an hour
ATTEMPTS_PER_ADDRESS = environment.number("ATTEMPTS_PER_ADDRESS", 200, minimum=1)  # in a quarter of an hour
SIGNUPS_PER_ADDRESS = environment.number("SIGNUPS_PER_ADDRESS", 100, minimum=1)  # in an hour
MAILS_PER_MAILBOX = environment.number("MAILS_PER_MAILBOX", 10, minimum=1)  # in an hour
INVITATIONS_PER_ORGANIZATION = environment.number("INVITATIONS_PER_ORGANIZATION", 200, minimum=1)  # in a day
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=10),
    "ISSUER": "platform",
    "AUDIENCE": "platform-api",
    "LEEWAY": 30,
    "USER_ID_CLAIM": "sub",
}

# ---------------------------------------------------------------------------------------------- models and inference

# "auto": bigcode/starcoder2-3b where there is an accelerator and its weights can be reached, else the shipped model.
BASE_MODEL = environment.choice("BASE_MODEL", "auto", {"auto", "bigcode/starcoder2-3b", "platform/python-small"})
# Where local copies of hub models lie: <folder>/<owner>/<name>, as `huggingface-cli download --local-dir` leaves them.
MODELS_ROOT = environment.folder("MODELS_ROOT", HOME / "models")
DEVICE = environment.choice("DEVICE", "auto", {"auto", "cpu", "cuda"})
TRAINER_THREADS = environment.number("TRAINER_THREADS", 0, maximum=1024)  # 0: what torch chooses
# Each with a device of its own, and TRAINER_THREADS of these; an accelerator for each has to be there.
TRAINER_PROCESSES = environment.number("TRAINER_PROCESSES", 1, minimum=1, maximum=64)
INFERENCE_URL = environment.url("INFERENCE_URL", "http://127.0.0.1:8001")
# Signs the tickets that the web process sends to the inference server.
INFERENCE_SECRET = environment.text("INFERENCE_SECRET", SECRET_KEY)
INFERENCE_TIMEOUT_S = environment.number("INFERENCE_TIMEOUT_S", 120, minimum=1)

# ---------------------------------------------------------------------------------------------- web

WEB_PROCESSES = environment.number("WEB_PROCESSES", min(4, len(os.sched_getaffinity(0))), minimum=1, maximum=64)
WEB_THREADS = environment.number("WEB_THREADS", 32, minimum=2, maximum=512)
MAX_BODY_BYTES = 2_000_000
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["platform_site.formats"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SESSION_ENGINE = "platform_site.sessions"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
# TLS ends at a proxy, which says so; probes on this machine ask without it
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^metrics$"]
SECURE_SSL_REDIRECT = SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SILENCED_SYSTEM_CHECKS: list[str] = []

STRAWBERRY_DJANGO = {"FIELD_DESCRIPTION_FROM_HELP_TEXT": True, "MAP_AUTO_ID_AS_GLOBAL_ID": True}
# Steps of the accent colour, light to dark, in the hue of static/platform/site.css: lightness in percent, chroma.
_ACCENT = {
    50: (97, 0.014), 100: (94, 0.028), 200: (89, 0.055), 300: (81, 0.105), 400: (71, 0.16), 500: (60, 0.19),
    600: (46, 0.21), 700: (41, 0.19), 800: (36, 0.16), 900: (31, 0.13), 950: (23, 0.1),
}  # fmt: skip
UNFOLD = {
    "SITE_TITLE": "Fine-tuning platform",
    "SITE_HEADER": "Fine-tuning platform",
    "SITE_SYMBOL": "model_training",
    "LOGIN": {"form": "accounts.login_form.ThrottledAuthenticationForm"},
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": f"{STATIC_URL}platform/icon.svg"}],
    "COLORS": {"primary": {str(step): f"oklch({light}% {chroma} 291)" for step, (light, chroma) in _ACCENT.items()}},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "platform_site.outage_log.OutageFormatter", "fmt": "%(levelname)s %(name)s: %(message)s"}
    },
    "filters": {"outages": {"()": "platform_site.outage_log.OutageFilter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["outages"]}},
    "root": {
        "handlers": ["stderr"],
        "level": environment.choice("LOG_LEVEL", "INFO", {"DEBUG", "INFO", "WARNING", "ERROR"}),
    },
    # "Enqueued ..." for each ring, and a warning for each 404, say nothing that the access log does not
    "loggers": {"django-q": {"level": "WARNING"}, "httpx": {"level": "WARNING"}},
}
