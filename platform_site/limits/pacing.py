"""Whoever asks faster than they may is slowed down to what they may: a program that waits for its answers is never refused.

Without it a minute's requests come in its first seconds, and for so long are most of what a small machine can do.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from platform_site.turns import Asker

logger = logging.getLogger(__name__)

AT_ONCE = 100  # that come before anybody is slowed down: a page may ask for some dozens
LATE = 20  # in a minute, that are counted up to a second after their turn, and then seem to come faster than they do
MOST_DELAY_S = 1.0
_SLOTS = 1 << 14
_SLOT = struct.Struct("=Qdd")  # whose it is, until when their requests reach, and how many a minute they may make
_STALE_S = 7200.0  # nobody is ahead of their rate for so long: the clock began anew


class TooFast(Exception):
    """As many are held back as may be."""

    def __init__(self, per_minute: int) -> None:
        super().__init__(per_minute)
        self.per_minute = per_minute


def pace(per_minute: float) -> float:
    """How many a second whoever may make so many a minute is slowed down to.

    Those that come at once are a part of the minute's: beside as many a second as the minute has of them, they would be too many.
    Of a rate of 220 on, what is slowed down is within it; a smaller one may be used up at once, and then there is a refusal.
    """
    return max(min(per_minute, AT_ONCE), per_minute - AT_ONCE - LATE) / 60


class Paces:
    """The generic cell rate algorithm (ITU-T I.371) for each asker, in a file that all web processes of a host share.

    Nothing is locked: of two requests at the same instant one may go uncounted. Where two askers share a slot, the one who came later
    is not slowed down while the other one is; `secret` keeps anybody from seeking that.
    """

    def __init__(self, file: Path, secret: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = hashlib.sha256(secret).digest()
        try:
            self._slots = _shared(file, _SLOTS * _SLOT.size)
        except OSError as error:
            logger.warning("Each web process counts for itself who asks too fast: %s: %s", file, error)
            self._slots = mmap.mmap(-1, _SLOTS * _SLOT.size)

    def delay_s(self, asker: Asker, usual_per_minute: int) -> float:
        """How long this request has to wait, which is counted. Raises TooFast, and counts nothing, where that is too long."""
        mine, place = self._slot_of(asker)
        owner, reaches, per_minute = _SLOT.unpack_from(self._slots, place)
        now = self._clock()
        if not now < reaches < now + _STALE_S:
            reaches = now
        elif owner != mine:
            return 0.0
        if owner != mine or not per_minute > 0:
            per_minute = usual_per_minute
        interval_s = 1 / pace(per_minute)
        delay = reaches - now - (AT_ONCE - 1) * interval_s
        if delay > MOST_DELAY_S:
            raise TooFast(round(per_minute))
        _SLOT.pack_into(self._slots, place, mine, reaches + interval_s, per_minute)
        return max(0.0, delay)

    def learn(self, asker: Asker, per_minute: int) -> None:
        """What they may do, as an answer said."""
        mine, place = self._slot_of(asker)
        owner, reaches, before = _SLOT.unpack_from(self._slots, place)
        if owner == mine and per_minute > 0 and before > 0 and before != per_minute:
            now = self._clock()
            ahead = max(0.0, reaches - now) * pace(before)  # requests
            _SLOT.pack_into(self._slots, place, mine, now + ahead / pace(per_minute), per_minute)

    def _slot_of(self, asker: Asker) -> tuple[int, int]:
        """(whose it is, where it begins)"""
        header, address = asker
        digest = hashlib.blake2b(b"%b\n%b" % (header, address.encode()), digest_size=16, key=self._secret).digest()
        mine, number = struct.unpack("=QQ", digest)
        return mine, number % _SLOTS * _SLOT.size


def _shared(file: Path, size: int) -> mmap.mmap:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)  # writing to a page that finds no room kills a process
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
