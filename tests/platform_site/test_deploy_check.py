"""Django's own list of what a deployment forgets, with the settings of production."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.processes import environment

PRODUCTION = {
    "PLATFORM_ENV": "production",
    "SECRET_KEY": "k9-" * 20 + "0123456789abcdef",
    "ALLOWED_HOSTS": "platform.example.com",
}


def check(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        env={**environment(), "PLATFORM_HOME": str(home), **variables},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )


@pytest.mark.django_db
def test_a_production_deployment_has_nothing_to_be_warned_of(tmp_path: Path) -> None:
    done = check(tmp_path, **PRODUCTION)
    assert (done.returncode, done.stdout) == (0, "System check identified no issues (0 silenced).\n"), done.stderr


@pytest.mark.django_db
def test_the_check_finds_what_development_allows(tmp_path: Path) -> None:
    done = check(tmp_path, PLATFORM_ENV="development", DEBUG="true")
    assert done.returncode == 1
    for issue in ("security.W004", "security.W008", "security.W012", "security.W018"):
        assert issue in done.stderr
