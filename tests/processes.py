"""Real processes of the platform, working on the test's own database, files, and Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.db import connection


def environment() -> dict[str, str]:
    """What makes a child process see the test's database instead of the developer's."""
    database = connection.settings_dict
    assert str(database["NAME"]).startswith("test_")
    host = quote(database["HOST"], safe="") + (f":{database['PORT']}" if database["PORT"] else "")
    login = quote(database["USER"], safe="") + (
        f":{quote(database['PASSWORD'], safe='')}" if database["PASSWORD"] else ""
    )
    return {
        **os.environ,
        "DATABASE_URL": f"postgresql://{login}@{host}/{database['NAME']}",
        "REDIS_URL": settings.REDIS_URL,
        "PLATFORM_HOME": str(settings.HOME),
        "SECRET_KEY": settings.SECRET_KEY,
        "REPORTS": str(settings.REPORTS),
        "ESTIMATES": str(settings.ESTIMATES),
    }


def start_python(code: str, **variables: str) -> subprocess.Popen[str]:
    """Run `code` after django.setup(), in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "import django; django.setup()\n" + code],
        cwd=settings.BASE_DIR,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_manage(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Run `manage.py` with `arguments`, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants_of(pid: int) -> list[int]:
    """All processes below `pid`, as the kernel has them now."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return found + [deeper for child in found for deeper in descendants_of(child)]
