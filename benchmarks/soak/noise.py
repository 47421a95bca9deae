"""A tenant's program that asks for the same run again and again, nine tenths as often as it may, and then far too often: `python -m benchmarks.soak.noise`.

SOAK_PLAN names the file that says what to do. It does as little as it can: on two cores, what a load takes is taken from the platform, and it is the platform's answers
to this one that are to be seen in the others' times.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.soak.mix import RUN

LAST_ANSWERS_S = 30.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Noise:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._host = urlsplit(plan["url"])
        self._request = _request(plan, f"{self._host.hostname}:{self._host.port}")
        self._idle: list[Connection] = []
        self._rows: list[list[Any]] = []

    async def make(self) -> list[list[Any]]:
        """Ask when it is due, however long the answers take. Returns the records."""
        chance, asked = random.Random(self._plan["seed"]), set()
        for (begin, end), rate in zip(self._plan["spans"], self._plan["rates"], strict=True):
            due = begin + chance.expovariate(rate)
            while due < end:
                await asyncio.sleep(max(0.0, due - time.time()))
                asked.add(asyncio.create_task(self._ask(due)))
                due += chance.expovariate(rate)
        await asyncio.wait(asked, timeout=LAST_ANSWERS_S)
        return self._rows

    async def _ask(self, due: float) -> None:
        try:
            reader, writer = await self._connection()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
            self._idle.append((reader, writer))
            status = int(head.split(b" ", 2)[1])
            problem = None if status == 200 else f"HTTP {status}"
        except (OSError, EOFError) as error:
            problem = f"no answer: {type(error).__name__}"
        self._rows.append([round(due, 4), round(time.time() - due, 5), "noise", False, problem])

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection[0].at_eof():  # the server closes what was silent for a while
                return connection
        return await asyncio.open_connection(self._host.hostname, self._host.port)


def _request(plan: dict[str, Any], host: str) -> bytes:
    noise = plan["noise"]
    body = json.dumps({"query": RUN, "variables": {"id": noise["run"]}}).encode()
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {noise['token']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _length(head: bytes) -> int:
    return next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))


if __name__ == "__main__":
    given = json.loads(Path(os.environ["SOAK_PLAN"]).read_text())
    made = asyncio.run(Noise(given).make())
    Path(given["records"]).write_text("".join(json.dumps(row) + "\n" for row in made))
