"""The server as a process: it says where it listens, and ends in order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference import client
from inference.client import InferenceError
from inference.engine.engine import EngineConfig
from inference.engine.scheduler import CLOSE_S
from inference.server.backend import ServerConfig
from inference.server.serve import DRAIN_S, GRACE_S, AddressInUse, serve
from inference.tickets import Ticket, issue, issue_status
from platform_site.address import Address
from platform_site.roles import processes

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
fetch = lambda *_: Path()
port, drain_s = int(sys.argv[3]), float(sys.argv[4])
leave(serve(config, secret=sys.argv[2], fetch=fetch, host="127.0.0.1", port=port, drain_s=drain_s, announce=announce))
"""


PROMPTED = {"prompt": "def", "temperature": 1.0, "seed": 3}
LONG = {**PROMPTED, "max_new_tokens": 120}


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


@dataclass
class Server:
    """A process with the tiny model, each of whose steps takes a fifth of a second."""

    base_path: Path
    process: subprocess.Popen[str]
    url: str

    @classmethod
    def start(cls, base_path: Path, drain_s: float, port: int = 0) -> Server:
        server = cls(base_path, *start("-c", START, str(base_path), SECRET, str(port), str(drain_s)))
        deadline = time.monotonic() + 90
        while httpx.get(f"{server.url}/readyz", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return server

    @contextmanager
    def asked(self, request: dict[str, Any]) -> Iterator[Iterator[str]]:
        """The lines of an answer after the first one, which is here."""
        body = json.dumps({"ticket": issue(Ticket("org-1", "tiny", 120), SECRET), **request})
        with httpx.stream("POST", f"{self.url}/generate", content=body, timeout=30, trust_env=False) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            yield lines

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        return client.predict(self.url, issue(Ticket("org-1", "tiny", 120), SECRET), request, timeout_s=30)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=[3.0])
def server(base_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The parameter is how long requests may take to finish after SIGTERM, in seconds."""
    server = Server.start(base_path, request.param)
    yield server
    server.end()


@pytest.mark.slow
def test_what_does_not_finish_in_time_after_sigterm_is_told(server: Server) -> None:
    """A stream that would take half a minute is told, and the status is 0."""
    with server.asked(LONG) as lines:
        server.process.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        rest = list(lines)
    assert "event: error" in rest
    assert json.loads(rest[-2].removeprefix("data: "))["code"] == "SHUTTING_DOWN"
    assert server.process.wait(timeout=10) == 0
    assert time.monotonic() - asked_at < 5.5


@pytest.mark.parametrize("server", [30.0], indirect=True)
def test_what_is_at_work_at_sigterm_is_finished_and_what_comes_is_refused(server: Server) -> None:
    with server.asked({**PROMPTED, "max_new_tokens": 15}) as lines:
        server.process.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        while (refusal := httpx.get(f"{server.url}/readyz", trust_env=False)).status_code == 200:
            assert time.monotonic() - asked_at < 2
        assert refusal.json()["reason"] == "It is stopping."
        with pytest.raises(InferenceError) as refused:
            server.predict(LONG)
        assert (refused.value.code, refused.value.retry_after) == ("SHUTTING_DOWN", 2)
        last = [line for line in lines if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["prediction"]["finish_reason"] in {"LENGTH", "STOP"}
    assert server.process.wait(timeout=10) == 0
    assert time.monotonic() - asked_at < 15


@pytest.mark.slow
@pytest.mark.parametrize("server", [30.0], indirect=True)
def test_a_second_signal_does_not_wait(server: Server) -> None:
    with server.asked(LONG) as lines:
        server.process.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        while httpx.get(f"{server.url}/readyz", trust_env=False).status_code == 200:
            assert time.monotonic() - asked_at < 2
        server.process.send_signal(signal.SIGTERM)
        assert "event: error" in list(lines)
    assert server.process.wait(timeout=10) == 0
    assert time.monotonic() - asked_at < 8


def test_a_crash_fails_what_was_at_work_and_another_process_goes_on(server: Server) -> None:
    with ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(server.predict, LONG) for _ in range(3)]
        ticket = issue_status(SECRET)
        while client.status(server.url, ticket)["at_work"] < 3:
            time.sleep(0.02)
        server.process.kill()
        failures = [answer.exception() for answer in answers]
    assert [getattr(failure, "code", failure) for failure in failures] == ["INFERENCE_UNAVAILABLE"] * 3
    again = Server.start(server.base_path, 3.0, port=int(server.url.rpartition(":")[2]))
    try:
        assert again.url == server.url
        assert again.predict({**PROMPTED, "max_new_tokens": 1})["completion_tokens"] == 1
    finally:
        again.end()


DYING = START.replace(
    "Engine.advance = slowly",
    """Engine.advance = slowly
from inference.engine.scheduler import Scheduler
import threading
def die(self):
    if threading.current_thread().name == "model" and Scheduler.admitted > 1:
        raise MemoryError
    Scheduler.admitted += 1
    return admit(self)
admit, Scheduler.admitted, Scheduler._admit = Scheduler._admit, 0, die""",
)


def test_a_process_whose_model_dies_ends_to_be_started_again(base_path: Path) -> None:
    process, url = start("-c", DYING, str(base_path), SECRET, "0", "3")
    try:
        dying = Server(base_path, process, url)
        deadline = time.monotonic() + 90
        while httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(InferenceError) as failure:
            dying.predict(LONG)
        assert failure.value.code == "SHUTTING_DOWN"
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "The model's thread has died: the process ends" in errors
    finally:
        process.kill()
        process.communicate()


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


def test_its_supervisor_waits_as_long_as_an_orderly_end_may_take() -> None:
    here = Address("127.0.0.1", 8000)
    stop_s = {process.name: process.stop_s for process in processes(here, here)}["inference"]
    assert stop_s > DRAIN_S + GRACE_S + CLOSE_S
