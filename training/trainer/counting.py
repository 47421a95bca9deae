"""`python -m training.trainer.counting ATTEMPT_DIR`: how long a dataset version's rows are in a base model's tokens.

What a run of that version will take is worked out from it. Imports neither torch nor transformers, and starts in a moment, but for a base
model with a chat template, which transformers renders.
common/child.py describes the protocol.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.child import Attempt, ChildError
from training.trainer.chat import ChatFormat, ChatTemplateError
from training.trainer.encoding import segments
from training.trainer.lengths import SHORTEST, Lengths
from training.trainer.rows import HELD_OUT_ROWS, count_rows, read_rows

MOST_ROWS = 60_000
"""Of the training split no more rows are counted than this, evenly spaced."""
_ROWS_AT_ONCE = 512


def lengths_of(rows: Iterable[Mapping[str, Any]], of: int, tokenizer: Any, chats: ChatFormat | None = None) -> Lengths:
    """Measure rows, of a split that has so many. `tokenizer` is of the library tokenizers; chats are plain without a format.

    Raises ChatTemplateError.
    """
    totals, needs, sampled, counted = [], [], 0, 0
    for pieces in _in_tokens(rows, tokenizer, chats or ChatFormat(None)):
        sampled += 1
        if any(tokens for tokens, supervised in pieces if supervised):
            pieces.append((1, True))  # the end of text
            totals.append(sum(tokens for tokens, _ in pieces))
            needs.append(_need(pieces))
            counted += sum(tokens for tokens, supervised in pieces if supervised)
    share = counted / max(1, sum(totals))
    return Lengths(of, sampled, np.asarray(totals, np.int64), np.asarray(needs, np.int64), share)


def _in_tokens(
    rows: Iterable[Mapping[str, Any]], tokenizer: Any, chats: ChatFormat
) -> Iterator[list[tuple[int, bool]]]:
    """Of each row its pieces, as encoding.py cuts them: how many tokens each has, and whether the loss counts it."""
    remaining = iter(rows)
    while batch := [segments(row, chats) for row in islice(remaining, _ROWS_AT_ONCE)]:
        texts = [text for pieces in batch for text, _ in pieces]
        found = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for pieces in batch:
            yield [(len(next(found).ids), supervised) for _, supervised in pieces]


def _need(pieces: Sequence[tuple[int, bool]]) -> int:
    """Once there is something to learn from, there is with longer sequences, too: what was cut off only gets less."""
    low, high = SHORTEST, max(SHORTEST, sum(tokens for tokens, _ in pieces))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_kept(pieces, middle) else (middle + 1, high)
    return low


def _is_kept(pieces: Sequence[tuple[int, bool]], max_tokens: int) -> bool:
    """Whether a counted token that something predicts is left, once the row is shortened as encoding.py does it."""
    total, prompt = sum(tokens for tokens, _ in pieces), pieces[0][0]
    room = max(max_tokens - (total - prompt), max_tokens // 2) if total > max_tokens else prompt
    place = 0
    for number, (tokens, supervised) in enumerate(pieces):
        tokens = min(tokens, room) if number == 0 else tokens
        if supervised and place + tokens > max(place, 1) and max(place, 1) < max_tokens:
            return True
        place += tokens
    return False


def chats_of(base: Path) -> ChatFormat:
    """As the base model's tokenizer has them."""
    config = base / "tokenizer_config.json"
    has_template = config.is_file() and json.loads(config.read_bytes()).get("chat_template")
    if not has_template and not (base / "chat_template.jinja").is_file():
        return ChatFormat(None)
    from transformers import AutoTokenizer

    return ChatFormat(AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False))


def main(folder: Path) -> None:
    with Attempt(folder) as attempt, attempt.interruptible():
        from tokenizers import Tokenizer

        file = Path(attempt.orders["tokenizer"])
        if not file.is_file():
            raise ChildError("BASE_MODEL_UNAVAILABLE", f"{file.parent.name} has no {file.name} to count tokens with.")
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        chats, splits = chats_of(file.parent), {}
        for name, paths in attempt.orders["data"].items():
            files = [Path(path) for path in paths]
            most = MOST_ROWS if name == "train" else HELD_OUT_ROWS
            try:
                splits[name] = lengths_of(read_rows(files, most), count_rows(files), tokenizer, chats).to_json()
            except ChatTemplateError as error:
                raise ChildError("CHAT_TEMPLATE", str(error)) from error
        attempt.succeed(splits=splits)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
