"""One JSON object from bytes that nobody vouches for: a dict, or the reason why not. Never a crash.

Stricter than the json module, which takes NaN, lone surrogates, and the last of two equal keys in silence.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from datasets.pipeline.rows import MAX_LINE_BYTES, Reason, Unusable

_ESCAPED_NUL_OR_SURROGATE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def decode_object(raw: bytes) -> dict[str, Any]:
    """The object that `raw` holds. Raises Unusable with the reason, and the key where one is at fault."""
    if len(raw) > MAX_LINE_BYTES:
        raise Unusable(Reason.LINE_TOO_LONG)
    value = decode_value(raw)
    if not isinstance(value, dict):
        raise Unusable(Reason.NOT_AN_OBJECT)
    if _ESCAPED_NUL_OR_SURROGATE.search(raw):
        for key, item in value.items():
            _check_characters(key, item)
    return value


def decode_value(raw: bytes | str) -> Any:
    """Any strict JSON value. Raises Unusable."""
    try:
        text = (raw if isinstance(raw, str) else raw.decode()).strip(" \t\r\n")
        value, end = _DECODER.raw_decode(text)
    except UnicodeDecodeError:
        raise Unusable(Reason.NOT_UTF8) from None
    except RecursionError:
        raise Unusable(Reason.NESTED_TOO_DEEP) from None
    except json.JSONDecodeError:
        raise Unusable(Reason.NOT_JSON) from None
    except ValueError:  # int() refuses more than 4,300 digits, which would take quadratic time
        raise Unusable(Reason.NUMBER_TOO_LONG) from None
    if end != len(text):
        raise Unusable(Reason.NOT_JSON)
    return value


def check_text(text: str, field: str | None = None) -> None:
    """Refuse what UTF-8 or the platform's database cannot hold. Raises Unusable."""
    if "\0" in text:
        raise Unusable(Reason.NUL_CHARACTER, field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable(Reason.LONE_SURROGATE, field) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Unusable(Reason.DUPLICATE_KEY, twice)
    return value


def _not_finite(_: str) -> NoReturn:
    raise Unusable(Reason.NOT_FINITE)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999
        _not_finite(text)
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite)


def _check_characters(key: str, item: Any) -> None:
    check_text(key)
    waiting = [item]  # not recursive: the decoder let it nest by almost the whole stack
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            check_text(value, key)
        elif isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
