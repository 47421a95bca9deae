"""A pytest plugin, loaded before the settings are: starts the embedded servers, for tests alone, where none are given.

Named in pyproject.toml's addopts, because pytest-django reads the settings before any conftest.py is.
"""

import os
import signal
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("PLATFORM_HOME", str(ROOT / "var" / "test"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "platform_site.settings")
os.environ["DEVICE"] = "cpu"
os.environ["BASE_MODEL"] = "platform/python-small"

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # in the background of a shell: tests of Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)

from platform_site import engines  # noqa: E402  (reads the environment above)

engines.start_if_needed()


def own_database(redis_url: str, worker: str) -> str:
    """A database of Redis for each process of tests: one would hear the rings of another, and flush what it counts.

    The processes of xdist inherit the URL of the one that started them, and of two databases in a URL the first one counts.
    """
    server, _, query = redis_url.partition("?")
    return f"{server}?{urlencode({**dict(parse_qsl(query)), 'db': worker.removeprefix('gw')})}"


os.environ["REDIS_URL"] = own_database(os.environ["REDIS_URL"], os.environ.get("PYTEST_XDIST_WORKER", "gw0"))
