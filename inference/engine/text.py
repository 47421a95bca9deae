"""From tokens to text as it grows: whole characters only, and nothing that may yet turn out to be a stop string."""

from __future__ import annotations

import codecs
from typing import Any


class Vocabulary:
    """The bytes behind each token of a byte-level BPE; special tokens stand for none."""

    def __init__(self, tokenizer: Any) -> None:
        byte_of = {character: byte for byte, character in _byte_alphabet().items()}
        added = tokenizer.added_tokens_decoder
        self._bytes: dict[int, bytes] = {}
        for token, index in tokenizer.get_vocab().items():
            if index in added:
                self._bytes[index] = b"" if added[index].special else added[index].content.encode()
            else:
                self._bytes[index] = bytes(byte_of[character] for character in token)

    def __getitem__(self, token: int) -> bytes:
        return self._bytes.get(token, b"")  # a model may have more rows than its tokenizer has tokens


class TextStream:
    """Turns one sequence's tokens into text. The pieces that `push` and `close` return add up to the whole text.

    Bytes that are no UTF-8 become U+FFFD; a character whose last bytes never came is left out. Once a stop string
    has appeared, `stopped` is true and the text ends before the string.
    """

    def __init__(self, vocabulary: Vocabulary, stop: tuple[str, ...]) -> None:
        self._vocabulary = vocabulary
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token and return the text that is now certain."""
        self._held += self._decoder.decode(self._vocabulary[token])
        found = [place for place in (self._held.find(text) for text in self._stop) if place >= 0]
        if found:
            self.stopped = True
            certain, self._held = self._held[: min(found)], ""
            return certain
        certain_length = len(self._held) - self._possible_stop_length()
        certain, self._held = self._held[:certain_length], self._held[certain_length:]
        return certain

    def close(self) -> str:
        """Return what was held back, because no more tokens come."""
        rest, self._held = self._held, ""
        return rest

    def _possible_stop_length(self) -> int:
        """Length of the longest end of the held text that a stop string starts with."""
        longest = max(map(len, self._stop), default=0) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(text.startswith(end) for text in self._stop):
                return length
        return 0


def _byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in the vocabulary file of a byte-level BPE (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(256 + index) for index, byte in enumerate(others)}
