"""Uploads of code that nobody wrote: functions and their docstrings from a seed, and lines among them that are broken."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BROKEN_SHARE = 0.02
_WORDS = [
    "self",
    "value",
    "items",
    "result",
    "index",
    "count",
    "path",
    "name",
    "data",
    "total",
    "left",
    "right",
    "key",
    "node",
    "buffer",
    "offset",
    "width",
    "line",
]
_LINES = (
    "if {0} is None:",
    "{0} = {1}.get({2!r}, {3})",
    "for {0} in sorted({1}, key=lambda one: one.{2}):",
    'raise ValueError(f"no {0}: {{{1}}}")',
    "return [{0}(x) for x in {1} if x[{3}] != {2!r}]",
    'logger.info("{0}: %s\\t%d", {1}, {3})',
    "{0} += {1}[{3}:] or {2!r}.encode()",
    "# the {0} of a {1}, before its {2}",
)
_BROKEN_JSON = (
    lambda line: line[: len(line) // 2],
    lambda line: b"oops, no JSON at all",
    lambda line: line.replace(b'"prompt": ', b'"prompt": NaN, "x": ', 1),
    lambda line: line.replace(b'"completion"', b'"prompt"', 1),
    lambda line: line.replace(b" ", b"\xff", 1),
    lambda line: b"[" + line + b"]",
)
_BROKEN_CSV = (
    lambda line: b"one field",
    lambda line: b'"a"b,c',
    lambda line: b"caf\xe9,c",
    lambda line: b"a,b,c",
)
_BROKEN_PARQUET = (
    lambda row: {**row, "prompt": None},
    lambda row: {**row, "completion": None},
    lambda row: {**row, "completion": row["completion"][:20] + "\0" + row["completion"][20:]},
)
ROW_GROUP_ROWS = 20_000


def functions(seed: int) -> Iterator[dict[str, str]]:
    """Rows without end: prompt and completion, about 900 bytes."""
    chance = random.Random(seed)
    number = 0
    while True:
        number += 1
        words = chance.choices(_WORDS, k=4)
        prompt = f'def {words[0]}_{number}({words[1]}, {words[2]}=None):\n    """The {words[3]} of {words[1]}."""\n'
        lines = [_line(chance) for _ in range(chance.randint(5, 35))]
        yield {"prompt": prompt, "completion": "".join(lines)}


@dataclass(frozen=True)
class Written:
    """What a file holds: the numbers of its broken lines, a digest of the rows of all others, and how many bytes it is read for."""

    broken: list[int]
    digest: str
    size_bytes: int


def digest_of(pairs: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for prompt, completion in pairs:
        digest.update(json.dumps([prompt, completion]).encode())
    return digest.hexdigest()


def write_jsonl(path: Path, size_bytes: int, seed: int) -> Written:
    """Write a file of about this size, and beside it one without the broken lines, with .good for its suffix."""
    chance, broken, good, written = random.Random(seed), [], [], 0
    with path.open("wb") as file, path.with_suffix(".good").open("wb") as beside:
        for number, row in enumerate(functions(seed), 1):
            line = json.dumps(row).encode()
            if number > 1 and chance.random() < BROKEN_SHARE:
                line = chance.choice(_BROKEN_JSON)(line)
                broken.append(number)
            else:
                good.append((row["prompt"], row["completion"]))
                beside.write(line + b"\n")
            written += file.write(line + b"\n")
            if written >= size_bytes:
                break
    return Written(broken, digest_of(good), written)


def write_csv(path: Path, size_bytes: int, seed: int) -> Written:
    """The same functions as a table."""
    chance, broken, good, written, line_number = random.Random(seed), [], [], 0, 2
    with path.open("wb") as file:
        written += file.write(b"prompt,completion\n")
        for number, row in enumerate(functions(seed), 1):
            if number > 1 and chance.random() < BROKEN_SHARE:
                data = chance.choice(_BROKEN_CSV)(b"") + b"\n"
                broken.append(line_number)
            else:
                text = io.StringIO(newline="")
                csv.writer(text, lineterminator="\n").writerow(row.values())
                data = text.getvalue().encode()
                good.append((row["prompt"], row["completion"]))
            written += file.write(data)
            line_number += data.count(b"\n")
            if written >= size_bytes:
                break
    return Written(broken, digest_of(good), written)


def write_parquet(path: Path, size_bytes: int, seed: int) -> Written:
    """The same functions as columns, row groups as other writers have them; so many bytes are those of the text."""
    chance, broken, good, written = random.Random(seed), [], [], 0
    waiting: list[dict[str, Any]] = []
    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for number, row in enumerate(functions(seed), 1):
            written += len(row["prompt"]) + len(row["completion"])
            if number > 1 and chance.random() < BROKEN_SHARE:
                waiting.append(chance.choice(_BROKEN_PARQUET)(row))
                broken.append(number)
            else:
                waiting.append(row)
                good.append((row["prompt"], row["completion"]))
            if len(waiting) == ROW_GROUP_ROWS or written >= size_bytes:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting = []
            if written >= size_bytes:
                break
    return Written(broken, digest_of(good), written)


def _line(chance: random.Random) -> str:
    indentation = "    " * chance.randint(1, 3)
    return indentation + chance.choice(_LINES).format(*chance.choices(_WORDS, k=3), chance.randint(0, 99)) + "\n"
