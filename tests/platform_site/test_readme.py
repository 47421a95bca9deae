"""The commands of the README and of the front page, as they stand there."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings

from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

CURL = re.compile(r"^    (curl .*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def run(command: str, **variables: str) -> Any:
    done = subprocess.run(["sh", "-c", command], env={**os.environ, **variables}, capture_output=True, check=True)
    return json.loads(done.stdout)["data"]


def test_the_front_page_says_how_to_sign_up() -> None:
    with serving() as url:
        page = httpx.get(url).text
        (command,) = re.findall(r"<code>(curl .*?)</code>", page, re.DOTALL)
        assert run(html.unescape(command))["signup"]["accessToken"]


def test_signing_up_and_asking_who_one_is_with_nothing_but_curl() -> None:
    sign_up, who_am_i = CURL.findall((Path(settings.BASE_DIR) / "README.md").read_text())
    with serving() as url:
        there = url.removeprefix("http://")
        token = run(sign_up.replace("localhost:8000", there))["signup"]["accessToken"]
        assert run(who_am_i.replace("localhost:8000", there), TOKEN=token) == {
            "me": {
                "email": "ada@example.com",
                "memberships": [{"role": "OWNER", "organization": {"name": "ada's organization"}}],
            }
        }
