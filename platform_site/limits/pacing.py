"""Whoever asks faster than they may is slowed down to what they may: whoever waits for each answer is not refused.

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

from platform_site.askers import Asker

logger = logging.getLogger(__name__)

AT_ONCE = 50  # that come before anybody is slowed down: a page may ask for some dozens
SMALLEST_AT_ONCE = 20
HELD_SHARE = 0.9  # of the rate, for whoever is held back: in their first minute there are those that came at once, too
MOST_DELAY_S = 1.0
REFUSAL_COST = 1 / 12  # of a request, but
MOST_COST_S = 1 / 240  # what others have of it is refusals a second
UNANSWERED_S = (
    1.0  # without an answer for so long, refusals cost nothing: one comes through, and with it a rate that has changed
)
SLACK_S = 0.1  # between two processes that look at the clock and at a slot
_SLOTS = 1 << 14
_WORDS = 4  # of eight bytes: whose a slot is; until when their requests reach; how many a minute they may make, 0 until that is known; when one was last let in


class TooFast(Exception):
    """As many are held back as may be; there is room for another in `wait_s`."""

    def __init__(self, per_minute: int, wait_s: float) -> None:
        super().__init__(per_minute, wait_s)
        self.per_minute = per_minute
        self.wait_s = wait_s


def at_once(per_minute: int) -> int:
    """How many of a rate come before anybody is slowed down: a twelfth of a minute's, if that is neither few nor many."""
    return min(AT_ONCE, max(per_minute // 12, min(per_minute, SMALLEST_AT_ONCE)))


class Paces:
    """The generic cell rate algorithm (ITU-T I.371) for each asker, in a file that all web processes of one host share.

    Nothing is locked. Each word is written at once, but of two requests at the same instant one may go uncounted. Where two askers share a
    slot, the one who came later is not slowed down while the other one is; `secret` keeps anybody from seeking that.
    """

    def __init__(self, file: Path, secret: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = hashlib.sha256(secret).digest()
        size = _SLOTS * _WORDS * 8
        try:
            shared = _shared(file, size)
        except OSError as error:
            logger.warning("Each web process counts for itself who asks too fast: %s: %s", file, error)
            shared = mmap.mmap(-1, size)
        self._owners, self._times = memoryview(shared).cast("Q"), memoryview(shared).cast("d")

    def take(self, asker: Asker, usual_per_minute: int) -> float:
        """Count one more request; returns how long it has to wait. Raises TooFast, and counts nothing, where that is too long.

        Whose rate is not known yet is held back by the usual one, and never refused for it.
        """
        mine, slot = self._slot_of(asker)
        known = self._known(mine, slot)
        per_minute = known or usual_per_minute
        interval_s, now = 60 / per_minute, self._clock()
        reaches = self._reaches(slot, usual_per_minute, now)
        if reaches > now and self._owners[slot] != mine:
            return 0.0
        delay = reaches - now - (at_once(per_minute) - 1) * interval_s
        if delay > MOST_DELAY_S:
            if known:
                raise TooFast(per_minute, delay - MOST_DELAY_S)
            return MOST_DELAY_S
        self._times[slot + 2] = known
        self._times[slot + 3] = now
        self._owners[slot] = mine
        self._times[slot + 1] = reaches + (interval_s / HELD_SHARE if delay > 0 else interval_s)
        return max(0.0, delay)

    def look(self, asker: Asker) -> TooFast | None:
        """What `take` would raise now."""
        mine, slot = self._slot_of(asker)
        if not (per_minute := self._known(mine, slot)):
            return None
        now = self._clock()
        wait_s = self._reaches(slot, per_minute, now) - now - (at_once(per_minute) - 1) * 60 / per_minute - MOST_DELAY_S
        return TooFast(per_minute, wait_s) if wait_s > 0 else None

    def charge(self, asker: Asker, refused: TooFast) -> TooFast:
        """Count a refusal as a part of a request: who does not wait when told to has less of their rate, until they do.

        Returns the refusal with the wait that follows from it.
        """
        mine, slot = self._slot_of(asker)
        now, interval_s = self._clock(), 60 / refused.per_minute
        if self._owners[slot] != mine or now - self._times[slot + 3] > UNANSWERED_S:
            return refused
        reaches = self._reaches(slot, refused.per_minute, now)
        most = now + MOST_DELAY_S + at_once(refused.per_minute) * interval_s
        charged = max(reaches, min(reaches + min(REFUSAL_COST * interval_s, MOST_COST_S), most))
        self._times[slot + 1] = charged
        return TooFast(refused.per_minute, refused.wait_s + charged - reaches)

    def _known(self, mine: int, slot: int) -> int:
        """How many a minute they may make; 0 for not known."""
        return int(self._times[slot + 2]) if self._owners[slot] == mine else 0

    def _reaches(self, slot: int, usual_per_minute: int, now: float) -> float:
        """Of whoever's it is. What a clock left that began anew, or another host's, holds nobody up."""
        reaches, per_minute = self._times[slot + 1], int(self._times[slot + 2]) or usual_per_minute
        return reaches if now < reaches <= now + _furthest_s(per_minute) + SLACK_S else now

    def learn(self, asker: Asker, per_minute: int) -> None:
        """What they may do, as an answer said, which is at least one."""
        mine, slot = self._slot_of(asker)
        if self._owners[slot] != mine or self._times[slot + 2] == per_minute:
            return
        now, before = self._clock(), self._times[slot + 2]
        if before >= 1:
            ahead = max(0.0, self._times[slot + 1] - now) * before / 60  # requests
            self._times[slot + 1] = now + min(ahead * 60 / per_minute, _furthest_s(per_minute))
        self._times[slot + 2] = per_minute

    def _slot_of(self, asker: Asker) -> tuple[int, int]:
        """(whose it is, its first word)"""
        credentials, network = asker
        digest = hashlib.blake2b(b"%b\n%b" % (credentials, network.encode()), digest_size=16, key=self._secret).digest()
        mine, number = struct.unpack("=QQ", digest)
        return mine, number % _SLOTS * _WORDS


def _furthest_s(per_minute: int) -> float:
    """How far ahead of the present anybody's requests can reach."""
    return MOST_DELAY_S + (at_once(per_minute) + 1 / HELD_SHARE) * 60 / per_minute


def _shared(file: Path, size: int) -> mmap.mmap:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)  # writing to a page that finds no room kills a process
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
