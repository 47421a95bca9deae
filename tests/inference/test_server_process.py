"""The server as a process: it says where it listens, and ends in order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inference.engine.engine import EngineConfig
from inference.server.backend import ServerConfig
from inference.server.serve import AddressInUse, serve
from inference.tickets import Ticket, issue

SECRET = "an installation's secret, 32 bytes or longer"
ROOT = Path(__file__).resolve().parents[2]
START = """
import sys, time
from pathlib import Path
from inference.engine.engine import Engine, EngineConfig
from inference.server.backend import ServerConfig
from inference.server.serve import leave, serve

advance = Engine.advance
def slowly(self, sequence):
    time.sleep(0.2)
    return advance(self, sequence)
Engine.advance = slowly
config = ServerConfig(EngineConfig("tiny", Path(sys.argv[1]), device="cpu", slots=2, max_rank=16, threads=1))
announce = lambda line: print(line, flush=True)
leave(serve(config, secret=sys.argv[2], fetch=lambda *_: Path(), host="127.0.0.1", port=0, announce=announce))
"""


def start(*command: str) -> tuple[subprocess.Popen[str], str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line.startswith("inference: listening on http://127.0.0.1:"):
        process.kill()
        raise AssertionError(line + process.stderr.read())
    return process, line.split()[-1]


@pytest.fixture
def process(base_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process, url = start("-c", START, str(base_path), SECRET)
    yield process, url
    process.kill()
    process.communicate()


def test_sigterm_ends_what_is_active_within_five_seconds(process: tuple[subprocess.Popen[str], str]) -> None:
    """A stream that would take half a minute is told, and the status is 0."""
    server, url = process
    deadline = time.monotonic() + 90
    while httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    body = {"ticket": issue(Ticket("org-1", "tiny", 120), SECRET), "prompt": "def", "max_new_tokens": 120}
    body |= {"temperature": 1.0, "seed": 3}
    with httpx.stream("POST", f"{url}/generate", content=json.dumps(body), timeout=30, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        server.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        rest = list(lines)
    assert "event: error" in rest
    assert json.loads(rest[-2].removeprefix("data: "))["code"] == "SHUTTING_DOWN"
    assert server.wait(timeout=10) == 0
    assert time.monotonic() - asked_at < 5.5


def test_a_folder_without_a_model_ends_the_command_with_one_line(tmp_path: Path) -> None:
    options = ["--port", "0", "--base-model-path", str(tmp_path), "--device", "cpu"]
    server, _ = start("manage.py", "inference_server", *options)
    _, errors = server.communicate(timeout=30)
    assert server.returncode == 1
    assert "is not a base model: it needs config.json and weights in safetensors." in errors
    assert "Traceback" not in errors


def test_a_port_in_use_is_one_clear_line(base_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = ServerConfig(EngineConfig("tiny", base_path))
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port} cannot be listened on: Address already in use"):
            serve(config, secret=SECRET, fetch=lambda *_: Path(), host="127.0.0.1", port=port)
