"""Chunks of the Python source that is installed here, and mutants of some of them, in an order that keeps families near."""

from __future__ import annotations

import json
import random
import re
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

SEED = 17
CHUNKS = 100_000
MUTATED_SHARE = 0.3
SIMILARITIES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.72, 0.7, 0.68, 0.6, 0.5)
NEAR = 500  # families that are shuffled together
MIN_CHARACTERS, MAX_CHARACTERS = 200, 20_000
SHINGLE_TOKENS = 5
TOKEN = re.compile(r"\w+")


def write(path: Path, chunks: int = CHUNKS) -> int:
    """One JSON object with a text a line; the number of lines. The same machine writes the same file."""
    chance, lines = random.Random(SEED), 0
    found = islice(_chunks(chance), chunks)
    with path.open("w") as file:
        while families := list(islice(found, NEAR)):
            texts = families + [
                _mutant(text, chance.choice(SIMILARITIES), chance)
                for text in families
                if chance.random() < MUTATED_SHARE
            ]
            chance.shuffle(texts)
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
            lines += len(texts)
    return lines


def _chunks(chance: random.Random) -> Iterator[str]:
    """Whole lines, of some two thousand characters."""
    for path in _sources(chance):
        try:
            lines = path.read_text("utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError):
            continue
        chunk, size = "", _size(chance)
        for line in lines:
            chunk += line[:MAX_CHARACTERS]
            if len(chunk) >= size:
                yield chunk
                chunk, size = "", _size(chance)


def _size(chance: random.Random) -> int:
    return int(min(max(chance.lognormvariate(7.2, 0.8), MIN_CHARACTERS), MAX_CHARACTERS))


def _sources(chance: random.Random) -> list[Path]:
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    found = sorted({path for folder in folders for path in Path(folder).rglob("*.py")})
    chance.shuffle(found)
    return found


def _mutant(text: str, similarity: float, chance: random.Random) -> str:
    """The text with so many of its tokens replaced, evenly, that the Jaccard similarity is about this.

    Each of k tokens takes five shingles of n with it: J = (n - 5k) / (n + 5k).
    """
    tokens = list(TOKEN.finditer(text))
    if len(tokens) <= SHINGLE_TOKENS:
        return text
    shingles = max(len(tokens) - SHINGLE_TOKENS + 1, 1)
    replaced = max(round(shingles * (1 - similarity) / (1 + similarity) / SHINGLE_TOKENS), 1)
    step = len(tokens) / replaced
    parts, end = [], 0
    for number in range(replaced):
        token = tokens[int((number + chance.random() * 0.5) * step)]
        parts += [text[end : token.start()], f"x{chance.randrange(10**9)}"]
        end = token.end()
    return "".join(parts) + text[end:]
