"""A large upload of code that nobody wrote, made from a smaller one by other names for everything: none of it is alike."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.parse.uploads import write_jsonl

PART_BYTES = 50_000_000
_WORD = re.compile(rb"[a-z]{4,}")


def write(path: Path, size_bytes: int, seed: int) -> int:
    """JSON Lines of about this size. Returns the size."""
    part = path.with_suffix(".part")
    write_jsonl(part, min(PART_BYTES, size_bytes), seed)
    lines = part.read_bytes()
    words = set(_WORD.findall(lines)) - {b"prompt", b"completion", b"true", b"false", b"null"}
    known = re.compile(rb"\b(?:" + b"|".join(sorted(words)) + rb")\b")
    with path.open("wb") as file:
        written = file.write(lines)
        number = 0
        while written < size_bytes:
            number += 1
            names = {word: b"%b%x" % (word, number) for word in words}
            written += file.write(known.sub(lambda found: names[found[0]], lines))  # noqa: B023
    for beside in (part, path.with_suffix(".good")):
        beside.unlink(missing_ok=True)
    return written
