"""How far the bytes of an upload may unpack: whoever sends little gets no right to much of the platform's time and disk."""

from __future__ import annotations

from common.child import ChildError

MAX_UNPACKED_BYTES = 4 << 30
MAX_RATIO = 100
FREE_BYTES = 16 << 20  # whatever the ratio: small files of equal rows pack very well


class Allowance:
    """What an upload of `packed` bytes may still unpack to; `code` and `what` are for the error."""

    def __init__(self, packed: int, code: str, what: str) -> None:
        self.unpacked = 0
        self._packed, self._code, self._what = max(packed, 1), code, what

    def take(self, size: int) -> None:
        """Count `size` bytes. Raises ChildError beyond 4 GiB, or 100 times what was packed."""
        self.unpacked += size
        if self.unpacked > MAX_UNPACKED_BYTES:
            raise ChildError(
                self._code, f"{self._what} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes. Upload it in parts."
            )
        if self.unpacked > max(MAX_RATIO * self._packed, FREE_BYTES):
            raise ChildError(
                self._code,
                f"{self._what} unpacks to more than {MAX_RATIO} times its size; at most that is read. "
                "Upload it in parts, or not compressed.",
            )
