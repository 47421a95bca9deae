"""The commands of the README and of the front page, as they stand there."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings

from tests.cast import make_person
from tests.inference.asking import running, shipped_app
from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

README = (Path(settings.BASE_DIR) / "README.md").read_text()
CURL = re.compile(r"^    (curl .*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^    import os\n.*?(?=\n\n\S)", re.MULTILINE | re.DOTALL)


def run(command: str, **variables: str) -> Any:
    done = subprocess.run(["sh", "-c", command], env={**os.environ, **variables}, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_the_front_page_says_how_to_sign_up() -> None:
    with serving() as url:
        page = httpx.get(url).text
        (command,) = re.findall(r"<code>(curl .*?)</code>", page, re.DOTALL)
        assert run(html.unescape(command))["data"]["signup"]["accessToken"]


def test_signing_up_and_asking_who_one_is_with_nothing_but_curl() -> None:
    sign_up, who_am_i, _ = CURL.findall(README)
    with serving() as url:
        there = url.removeprefix("http://")
        token = run(sign_up.replace("localhost:8000", there))["data"]["signup"]["accessToken"]
        assert run(who_am_i.replace("localhost:8000", there), TOKEN=token)["data"] == {
            "me": {
                "email": "ada@example.com",
                "memberships": [{"role": "OWNER", "organization": {"name": "ada's organization"}}],
            }
        }


def test_asking_a_model_with_curl_and_with_the_openai_package(settings: Any, tmp_path: Path) -> None:
    *_, complete = CURL.findall(README)
    (program,) = PYTHON.findall(README)
    ada = make_person("Ada")
    with running(shipped_app(tmp_path)) as model, serving() as url:
        settings.INFERENCE_URL, there = model, url.removeprefix("http://")
        answer = run(complete.replace("localhost:8000", there), TOKEN=ada.token)
        assert (answer["object"], answer["usage"]["completion_tokens"]) == ("text_completion", 16)
        code = textwrap.dedent(program).replace("localhost:8000", there)
        environment = {**os.environ, "TOKEN": ada.token, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, *said = done.stdout.splitlines()
    assert first == "platform/python-small"
    assert "".join(said).strip()
