"""Documents without end, some of which resemble one another."""

from __future__ import annotations

import random
from collections.abc import Iterator

SEED = 23
WORDS = [f"w{number}" for number in range(50_000)]
WORDS_A_DOCUMENT = (20, 60)
SIMILAR_SHARE = 0.2  # of documents that are an earlier one with another word in it


def mixed() -> Iterator[str]:
    chance = random.Random(SEED)
    recent: list[list[str]] = [["first"]]
    while True:
        if chance.random() < SIMILAR_SHARE:
            words = [*chance.choice(recent)]
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        else:
            words = chance.choices(WORDS, k=chance.randint(*WORDS_A_DOCUMENT))
            recent = [*recent[-99:], words]
        yield " ".join(words)


def copies() -> Iterator[str]:
    """Any two have a similarity of .69 to .84."""
    words, number = WORDS[:60], 0
    while True:
        place = number % len(words)
        yield " ".join([*words[:place], f"x{number}", *words[place + 1 :]])
        number += 1
