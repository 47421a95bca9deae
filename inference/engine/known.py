"""Files that had their digest once, and are read again: whether they are still the same, in a twelfth of sha256's time.

What is remembered of a file is a GMAC under a key that this process alone has: nobody else can make another file that
passes (NIST SP 800-38D).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MOST = 10_000
"""Adapters that are remembered, the least recently used out first."""
LONGEST = 2**31 - 1
"""What a GMAC takes at a time; a longer file is verified by its digest each time."""


@dataclass(frozen=True)
class _Tag:
    nonce: bytes
    tag: bytes


class KnownFiles:
    """Safe to use from many threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._cipher = AESGCM(AESGCM.generate_key(128))
        self._tags: OrderedDict[str, tuple[_Tag, ...]] = OrderedDict()
        self._made = 0
        self._lock = threading.Lock()

    def holds(self, digest: str, config: bytes, weights: bytearray | memoryview) -> bool:
        """Whether these are the files that were remembered for this digest."""
        with self._lock:
            tags = self._tags.get(digest)
            if tags is None:
                return False
            self._tags.move_to_end(digest)
        return all(self._fits(tag, content) for tag, content in zip(tags, (config, weights), strict=True))

    def remember(self, digest: str, config: bytes, weights: bytearray | memoryview) -> None:
        """To be called with files that have this digest."""
        if len(weights) > LONGEST:
            return
        tags = tuple(self._tagged(content) for content in (config, weights))
        with self._lock:
            self._tags[digest] = tags
            while len(self._tags) > self._most:
                self._tags.popitem(last=False)

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
