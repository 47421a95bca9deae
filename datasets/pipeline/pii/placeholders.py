"""What stands in the place of something: ours, by which masked text is known, and those that people write themselves."""

from __future__ import annotations

import hashlib
import math
import re

from datasets.pipeline.pii.kinds import CODES, KINDS, Kind

FEWEST_KEY_BYTES = 16
_TAG_BYTES = 6
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")  # digits would be found anew
_NUMBER = "999"  # no card, no country code, and no id of 15 digits begins so
_NUMBER_BYTES = _NUMBER.encode()
_NUMBER_DIGITS = 10

_LONG = 120  # bytes

OURS = re.compile(rb"(?:%s)_[a-p]{%d}" % ("|".join(KINDS).encode(), 2 * _TAG_BYTES))
_TAG = re.compile(rb"_[a-p]{%d}" % (2 * _TAG_BYTES))  # found sooner than one of so many kinds
OUR_NUMBERS = re.compile(rb"(?<![0-9A-Za-z])%s[0-9]{%d}(?![0-9A-Za-z])" % (_NUMBER.encode(), 2 + _NUMBER_DIGITS))

# What people write where the reader has to put a value, in lower case.
_WORDS_INSTEAD = (
    *(b"xxxx", b"****", b"...", b"----", b"____", b"<", b">", b"{{", b"${", b"%(", b"%s", b"%d"),
    *(b"example", b"your", b"placeholder", b"place_holder", b"place-holder", b"changeme", b"change_me", b"change-me"),
    *(b"changeit", b"changethis", b"dummy", b"redacted", b"sample", b"fake", b"insert", b"replace", b"todo", b"fixme"),
    *(b"0123456", b"1234567", b"abcdefg", b"deadbeef"),
)
_SAID_INSTEAD = re.compile(b"|".join(map(re.escape, _WORDS_INSTEAD)))
_WRITTEN_INSTEAD = re.compile(rb"\{[a-z_.]*\}|(?:^|[_-])my[_-]|(.)\1{7,}")


def is_masked(value: bytes) -> bool:
    """Whether one of our own placeholders is in it."""
    if _TAG.search(value) and OURS.search(value):
        return True
    return _NUMBER_BYTES in value and OUR_NUMBERS.search(value) is not None


def is_placeholder(value: bytes) -> bool:
    """Whether a secret is none: masked already, or to be filled in by the reader. In long ones such words come by chance."""
    if is_masked(value):
        return True
    if len(value) > _LONG:
        return False
    lowered = value.lower()
    if _SAID_INSTEAD.search(lowered):
        return True
    may_be = b"{" in lowered or b"my" in lowered or _may_repeat(lowered)
    return may_be and _WRITTEN_INSTEAD.search(lowered) is not None


def _may_repeat(value: bytes) -> bool:
    """False where no byte stands eight times in a row: then no seven bytes in a row are like the one before each."""
    number = int.from_bytes(value)
    return bytes(7) in (number ^ number >> 8).to_bytes(len(value))


def is_random(value: bytes, least: float) -> bool:
    """Whether Shannon's entropy of the first 256 bytes is at least so many bits a byte."""
    value = value[:_MOST_COUNTED]
    total, distinct = len(value), set(value)
    if math.log2(total) - _COUNT_BY_ITS_LOG[total - len(distinct) + 1] / total > least + 1e-6:
        return True  # even if all but one of them stood once
    counts = map(value.count, dict.fromkeys(value))
    return math.log2(total) - sum(map(_COUNT_BY_ITS_LOG.__getitem__, counts)) / total >= least


_MOST_COUNTED = 256
_COUNT_BY_ITS_LOG = [0.0, *(count * math.log2(count) for count in range(1, _MOST_COUNTED + 1))]


class Placeholders:
    """One for each value: the same value gives the same one under the same key, and without the key nobody can tell.

    As a word it is the kind and twelve letters: PHONE_kfbpjcoamhdl. As a number it has fifteen digits: 999, two for the
    kind's place in KINDS, and ten for the value. Both are a keyed BLAKE2b of kind and value: a hash without a key could be
    tried with all telephone numbers there are.
    """

    def __init__(self, key: bytes) -> None:
        """Raises ValueError where the key has fewer than 16 bytes."""
        if len(key) < FEWEST_KEY_BYTES:
            raise ValueError(f"The key of placeholders must have {FEWEST_KEY_BYTES} bytes or more.")
        self._key = hashlib.sha256(key).digest()

    def word(self, kind: Kind, value: str) -> str:
        return f"{kind}_{self._tag(kind, value).hex().translate(_LETTERS)}"

    def number(self, kind: Kind, value: str) -> str:
        tag = int.from_bytes(self._tag(kind, value)) % 10**_NUMBER_DIGITS
        return f"{_NUMBER}{CODES[kind]:02}{tag:0{_NUMBER_DIGITS}}"

    def _tag(self, kind: Kind, value: str) -> bytes:
        named = f"{kind}\0{_same(kind, value)}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(named, digest_size=_TAG_BYTES, key=self._key).digest()


def _same(kind: Kind, value: str) -> str:
    """Spellings of one value as one: an address or a name in capitals, a number with other separators."""
    if kind is Kind.EMAIL:
        return value.lower()
    if kind is Kind.PERSON_NAME:
        return " ".join(value.lower().split())
    return value.translate(_NO_SEPARATORS) if kind in _NUMBERED else value


_NO_SEPARATORS = dict.fromkeys(map(ord, " .-/()+"))
_NUMBERED = frozenset(KINDS[CODES[Kind.IBAN] : CODES[Kind.EMAIL]]) | {Kind.PHONE}
