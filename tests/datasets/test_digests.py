"""Digests decide what is a duplicate and which split a row falls into: they must not change unnoticed."""

from __future__ import annotations

import hashlib

from datasets.pipeline.arrays import table
from datasets.pipeline.steps import WITH_DIGEST
from datasets.pipeline.stored.digests import DIGEST_BYTES, digests, keys_of

PROMPTS = ["a", "", "\u00e9\0"]
COMPLETIONS = ["b", "ab", "\U0001f600"]


def _straightforward(prompt: str, completion: str) -> bytes:
    hasher = hashlib.sha256()
    for name, text in (("prompt", prompt), ("completion", completion)):
        hasher.update(b"%s\0%d\0" % (name.encode(), len(text.encode())))
        hasher.update(text.encode())
    return hasher.digest()[:DIGEST_BYTES]


def test_a_digest_is_of_names_lengths_and_texts() -> None:
    rows = table({"prompt": PROMPTS, "completion": COMPLETIONS, "line": [1, 2, 3]}, 3)
    expected = [_straightforward(*pair) for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert digests(rows).to_pylist() == expected
    assert digests(rows.slice(1)).to_pylist() == expected[1:]
    with_digest = rows.append_column(WITH_DIGEST.field("digest"), digests(rows))
    assert keys_of(with_digest) == expected
    assert keys_of(with_digest.slice(1, 1)) == expected[1:2]


def test_no_rows_have_no_digests() -> None:
    assert digests(table({}, 0)).to_pylist() == []
