"""Fill-in-the-middle: texts whose middle is moved to the end (Bavarian et al., 2022, arXiv:2207.14255).

A model that reads from left to right so learns to write what stands between two passages. A text is cut at two places,
any of its characters' borders as likely as any other, into prefix, middle, and suffix, which are tokenized apart; half of
these texts get the one order, half the other:

    PSM   <fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle end-of-text
    SPM   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix middle end-of-text

The loss is on all but the first token, as for other texts: the paper found that left-to-right ability does not suffer.
Which texts, which cuts, and which order depend on the seed and the row's number, and on nothing else: they are the same
in each epoch, after a resume, and in a repetition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from training.trainer.encoding import IGNORED, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREFIX, SUFFIX, MIDDLE = SENTINELS = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
"""As starcoder2's tokenizer has them."""
SPM_SHARE = 0.5
_MARKS = len(SENTINELS) + 1  # and the end of text
_ROOM = 8  # tokens that two cuts within a text may add to its own
_STREAM = 0x46494D  # keeps these random numbers apart from those that order the rows


class FimError(Exception):
    """The tokenizer has no tokens for fill-in-the-middle; the message says which."""


class FillInTheMiddle:
    """Rearranges a share of the rows that are plain text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rate: float, seed: int) -> None:
        """Raises FimError where the tokenizer lacks a sentinel."""
        vocabulary = tokenizer.get_vocab()
        if missing := [sentinel for sentinel in SENTINELS if sentinel not in vocabulary]:
            raise FimError(f"Its tokenizer has no {', '.join(missing)}.")
        self._prefix, self._suffix, self._middle = (vocabulary[sentinel] for sentinel in SENTINELS)
        self._tokenizer, self._rate, self._seed = tokenizer, rate, seed
        self.rearranged_rows = 0

    def rearranged(self, row: Mapping[str, Any], number: int, max_tokens: int) -> Example | None:
        """Return the row of this number (in its split) rearranged, or None for one that stays as it is.

        Of a text of more than max_tokens tokens the beginning is rearranged. A text that names a sentinel stays.
        """
        text = row.get("text")
        if not text or row.get("completion") is not None or row.get("messages") is not None:
            return None
        draw = np.random.default_rng([self._seed, number, _STREAM])
        if draw.random() >= self._rate or any(sentinel in text for sentinel in SENTINELS):
            return None
        is_spm = draw.random() < SPM_SHARE
        kept = self._beginning(text, max_tokens - _MARKS - _ROOM)
        first, second = sorted(int(cut) for cut in draw.integers(0, len(kept) + 1, size=2))
        prefix, middle, suffix = self._tokens([kept[:first], kept[first:second], kept[second:]])
        end = [self._tokenizer.eos_token_id]
        if is_spm:
            ids = [self._prefix, self._suffix, *suffix, self._middle, *prefix, *middle, *end]
        else:
            ids = [self._prefix, *prefix, self._suffix, *suffix, self._middle, *middle, *end]
        if len(ids) > max_tokens:
            return None
        self.rearranged_rows += 1
        return Example(ids, [IGNORED, *ids[1:]], truncated=len(kept) < len(text))

    def _beginning(self, text: str, at_most: int) -> str:
        """As much of a text as so many tokens hold."""
        if len(text.encode()) <= at_most:  # a token is a byte or more
            return text
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in encoded["offset_mapping"]]
        return text if len(ends) <= at_most else text[: ends[at_most - 1]]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        made = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids: list[list[int]] = made["input_ids"]
        return ids
