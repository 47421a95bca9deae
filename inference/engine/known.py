"""Files that had their digest once, and are read again: whether they are still the same, in a twelfth of sha256's time.

What is remembered of a file is a GMAC under a key that this process alone has: nobody else can make another file that
passes (NIST SP 800-38D). With it goes what was found of its bytes, which is so of the same bytes again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from training.trainer.reading import Layout

MOST = 1_000
"""Adapters that are remembered, the least recently used out first."""
LONGEST = 2**31 - 1
"""What a GMAC takes at a time; a longer file is verified by its digest each time."""


@dataclass(frozen=True)
class _Tag:
    nonce: bytes
    tag: bytes


@dataclass(frozen=True)
class _Kept:
    tags: tuple[_Tag, ...]
    layout: Layout


class KnownFiles:
    """Of files that are read with the same limits; safe to use from many threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._cipher = AESGCM(AESGCM.generate_key(128))
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._made = 0
        self._lock = threading.Lock()

    def recall(self, digest: str, config: bytes, weights: bytearray | memoryview) -> Layout | None:
        """What was found of the files that were remembered for this digest, if these are the same."""
        with self._lock:
            kept = self._kept.get(digest)
            if kept is None:
                return None
            self._kept.move_to_end(digest)
        same = all(self._fits(tag, content) for tag, content in zip(kept.tags, (config, weights), strict=True))
        return kept.layout if same else None

    def remember(self, digest: str, config: bytes, weights: bytearray | memoryview, layout: Layout) -> None:
        """To be called with files that have this digest."""
        if len(weights) > LONGEST:
            return
        kept = _Kept(tuple(self._tagged(content) for content in (config, weights)), layout)
        with self._lock:
            self._kept[digest] = kept
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def _tagged(self, content: bytes | bytearray | memoryview) -> _Tag:
        with self._lock:
            self._made += 1
            nonce = self._made.to_bytes(12, "big")  # never twice under one key
        return _Tag(nonce, self._cipher.encrypt(nonce, b"", content))

    def _fits(self, tag: _Tag, content: bytes | bytearray | memoryview) -> bool:
        if len(content) > LONGEST:
            return False
        try:
            self._cipher.decrypt(tag.nonce, tag.tag, content)
        except InvalidTag:
            return False
        return True
