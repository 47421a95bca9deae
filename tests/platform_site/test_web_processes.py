"""Several web processes share one socket, which outlives each of them. Real processes throughout."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from platform_site.address import Address, close_all
from platform_site.engines.place import ROOT
from platform_site.guard import descendants
from platform_site.log import Log
from platform_site.roles import METRICS, processes
from platform_site.supervisor import Supervisor
from platform_site.web import KINDS, ROOM_BYTES
from tests.processes import environment
from tests.web import soon

pytestmark = pytest.mark.django_db(transaction=True)

TAKEN = re.compile(r'^(process_\w+)\{process="(web-\d)"\} (\S+)$', re.MULTILINE)
COUNTED = re.compile(r"^django_http_requests_before_middlewares_total (\S+)$", re.MULTILINE)


@dataclass
class Site:
    url: str
    supervisor: Supervisor

    def pids(self) -> list[int]:
        """Of the processes that serve, without their guards."""
        return [pid for pid in descendants(os.getpid()) if words_of(pid)[1:3] == ["-m", "platform_site.web"]]

    def get(self, path: str) -> httpx.Response:
        """Over a connection of its own."""
        return httpx.get(f"{self.url}{path}", timeout=60, trust_env=False)

    def taken(self) -> dict[str, dict[str, float]]:
        """What each process takes, by its name."""
        taken: dict[str, dict[str, float]] = {}
        for what, name, value in TAKEN.findall(self.get("/metrics").text):
            taken.setdefault(name, {})[what] = float(value)
        return taken

    def counted(self) -> float:
        found = COUNTED.search(self.get("/metrics").text)
        assert found is not None
        return float(found[1])


def words_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:  # it has just gone
        return []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(settings, "HOME", tmp_path)
    monkeypatch.setattr(settings, "WEB_PROCESSES", 2)
    address = Address.free()
    listeners = address.listen()
    web = [each for each in processes(address, None, listeners=listeners) if each.name.startswith("web-")]
    assert [each.name for each in web] == ["web-1", "web-2"]
    log = Log(tmp_path / "platform.log")
    supervisor = Supervisor([replace(each, env={**environment(), **each.env}) for each in web], log, ROOT)
    supervisor.start()
    try:
        supervisor.wait_ready(90)
        yield Site(address.url, supervisor)
    finally:
        supervisor.start_nothing_more()
        close_all(listeners)
        supervisor.stop()
        log.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address.url}/livez", trust_env=False)


def test_whoever_comes_while_processes_die_is_answered_and_counters_go_on(site: Site) -> None:
    for _ in range(20):
        assert site.get("/static/platform/icon.svg").status_code == 200
    assert site.counted() == 21  # of both processes, whichever is asked; this question is one itself
    first, second = site.pids()
    metrics = list((Path(settings.HOME) / METRICS).glob("*.db"))
    assert {file.name for file in metrics} == {f"{kind}_{number}.db" for kind in KINDS for number in (1, 2)}
    for file in metrics:  # with all the room that it has: a full disk is no fault of memory
        assert file.stat().st_blocks * 512 >= file.stat().st_size == ROOM_BYTES

    os.kill(first, signal.SIGKILL)
    for _ in range(20):
        assert site.get("/livez").status_code == 200
    os.kill(second, signal.SIGKILL)
    with ThreadPoolExecutor(8) as clients:  # nobody or one process is there; those who come wait
        assert [each.status_code for each in clients.map(site.get, ["/livez"] * 20)] == [200] * 20

    assert soon(lambda: len(site.pids()) == 2 and not site.supervisor.waiting_for(), within_s=90)
    assert not {first, second} & set(site.pids())
    assert site.counted() == 22


def test_metrics_say_what_each_process_takes_whichever_is_asked(site: Site) -> None:
    for _ in range(10):
        taken = site.taken()
        assert set(taken) == {"web-1", "web-2"}
    for each in taken.values():
        assert set(each) == {
            *("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds"),
            *("process_cpu_seconds_total", "process_open_fds", "process_max_fds"),
        }
        assert each["process_virtual_memory_bytes"] > each["process_resident_memory_bytes"] > 50_000_000
        assert each["process_max_fds"] >= each["process_open_fds"] > 10
        assert each["process_cpu_seconds_total"] > 0.5
    pids = {name: pid for pid in site.pids() for name in taken if words_of(pid)[4] == name[-1]}
    files = {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in pids.items()}
    assert {name: abs(each["process_open_fds"] - files[name]) <= 5 for name, each in taken.items()} == {
        "web-1": True,
        "web-2": True,
    }

    os.kill(pids["web-2"], signal.SIGSTOP)  # it answers nothing, and is told of all the same
    try:
        assert soon(lambda: set(site.taken()) == {"web-1", "web-2"})
    finally:
        os.kill(pids["web-2"], signal.SIGKILL)
    assert soon(lambda: "web-2" not in site.taken())
    assert soon(lambda: site.taken().get("web-2", taken["web-2"]) != taken["web-2"], within_s=90)
    assert site.taken()["web-2"]["process_start_time_seconds"] > taken["web-2"]["process_start_time_seconds"]
