"""Which columns of an upload mean what: recognised by name, or as the recipe maps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from common.child import ChildError
from datasets.pipeline.reading.objects import check_text, decode_value
from datasets.pipeline.recipe import ColumnMapping
from datasets.pipeline.rows import Reason, Unusable, excerpt

# (prompt, completion) by the names that people give them, the most telling pair first.
PAIR_NAMES = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("input", "target"),
    ("source", "target"),
)
MESSAGES_NAMES = ("messages", "conversations", "conversation")
TEXT_NAMES = ("text", "content", "code")
GROUP_NAME = "group"
ALPACA_CONTEXT = "input"  # beside an instruction
KNOWN_NAMES = frozenset({*(name for pair in PAIR_NAMES for name in pair), *MESSAGES_NAMES, *TEXT_NAMES, GROUP_NAME})

# OpenAI's names and ShareGPT's, as OpenAI's.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


@dataclass(frozen=True)
class Columns:
    """The upload's columns that make a row: prompt (with context) and completion, or text, or messages."""

    prompt: str | None = None
    context: str | None = None
    completion: str | None = None
    text: str | None = None
    messages: str | None = None
    group: str | None = None

    def to_json(self) -> dict[str, str]:
        return {name: column for name, column in asdict(self).items() if column is not None}

    def needed(self) -> set[str]:
        """The columns without which there is no row."""
        return self.texts() or ({self.messages} if self.messages else set())

    def texts(self) -> set[str]:
        """The columns that hold a row's text as it is."""
        if self.prompt and self.completion:
            return {self.prompt, self.completion}
        return {self.text} if self.text else set()

    def row(self, fields: Mapping[str, Any]) -> dict[str, str | None]:
        """The row's content and group. Raises Unusable: MISSING_FIELD, WRONG_TYPE, NO_ANSWER, or a bad character."""
        row: dict[str, str | None] = {"group": self._group(fields)}
        if self.prompt and self.completion:
            prompt = _text(fields, self.prompt)
            if self.context and fields.get(self.context) not in (None, ""):
                prompt += "\n\n" + _text(fields, self.context)
            row["prompt"] = prompt
            row["completion"] = _text(fields, self.completion)
        elif self.text:
            row["text"] = _text(fields, self.text)
        elif self.messages:
            row["messages"] = chat_of(fields, self.messages)
        return row

    def _group(self, fields: Mapping[str, Any]) -> str | None:
        value = fields.get(self.group) if self.group else None
        if value is None or value == "":
            return None  # such a row is a group of its own
        if not isinstance(value, (str, int)):
            raise Unusable(Reason.WRONG_TYPE, self.group)
        check_text(str(value), self.group)
        return str(value)


def resolve_columns(mapping: ColumnMapping, rows: Iterable[Mapping[str, Any]]) -> Columns:
    """The columns of which most of the sampled rows have all. Raises ChildError, naming the columns that there are.

    A mapped column wins over what would be recognised, and has to exist.
    """
    counts: dict[str, int] = {}
    samples = [tuple(row) for row in rows]
    for names in samples:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    for mapped in (mapping.prompt, mapping.completion, mapping.text, mapping.messages, mapping.group):
        if mapped and mapped not in counts:
            raise ChildError("COLUMN_UNKNOWN", f"There is no column {_quoted(mapped)}. {_there_are(counts)}")
    shapes = _mapped_shapes(mapping, counts) or _shapes(counts)
    best = max(shapes, key=lambda shape: _rows_with(shape, samples), default=None)  # the first one of equals
    if best is None or _rows_with(best, samples) == 0:
        raise ChildError(
            "COLUMNS_NOT_RECOGNISED",
            f"{_there_are(counts)} Rename them to prompt and completion, instruction and output, messages, or text, "
            "or say in the recipe's columns which is which.",
        )
    group = mapping.group or _spelled(GROUP_NAME, counts)
    return replace(best, group=group)


def recognises(names: Iterable[str]) -> bool:
    """Whether columns of these names make a row without a mapping."""
    return bool(_shapes(dict.fromkeys(names, 1)))


def _mapped_shapes(mapping: ColumnMapping, counts: Mapping[str, int]) -> list[Columns]:
    if mapping.text:
        return [Columns(text=mapping.text)]
    if mapping.messages:
        return [Columns(messages=mapping.messages)]
    if not (mapping.prompt or mapping.completion):
        return []
    if mapping.prompt and mapping.completion:
        return [_pair(mapping.prompt, mapping.completion, counts)]
    known = [
        _pair(mapping.prompt or prompt, mapping.completion or completion, counts)
        for prompt, completion in _pairs(counts, mapping.prompt, mapping.completion)
    ]
    if not known:
        missing = "completion" if mapping.prompt else "prompt"
        raise ChildError("COLUMNS_NOT_RECOGNISED", f"Map the {missing}, too. {_there_are(counts)}")
    return known


def _shapes(counts: Mapping[str, int]) -> list[Columns]:
    shapes: list[Columns] = []
    shapes += [Columns(messages=column) for name in MESSAGES_NAMES if (column := _spelled(name, counts))]
    shapes += [_pair(prompt, completion, counts) for prompt, completion in _pairs(counts)]
    shapes += [Columns(text=column) for name in TEXT_NAMES if (column := _spelled(name, counts))]
    return shapes


def _pairs(
    counts: Mapping[str, int], prompt: str | None = None, completion: str | None = None
) -> list[tuple[str, str]]:
    """The known pairs that there are; where one side is given, only the other has to be known."""
    found = []
    for prompt_name, completion_name in PAIR_NAMES:
        left = prompt or _spelled(prompt_name, counts)
        right = completion or _spelled(completion_name, counts)
        if left and right and left != right:
            found.append((left, right))
    return found


def _pair(prompt: str, completion: str, counts: Mapping[str, int]) -> Columns:
    context = _spelled(ALPACA_CONTEXT, counts) if prompt.lower() == "instruction" else None
    return Columns(prompt=prompt, completion=completion, context=None if context == completion else context)


def _spelled(name: str, counts: Mapping[str, int]) -> str | None:
    """The column of that name, whatever its case."""
    if name in counts:
        return name
    return next((column for column in counts if column.strip().lower() == name), None)


def _rows_with(shape: Columns, samples: list[tuple[str, ...]]) -> int:
    needed = {column for role, column in shape.to_json().items() if role != "context"}
    return sum(needed.issubset(names) for names in samples)


def _text(fields: Mapping[str, Any], column: str, place: str | None = None) -> str:
    value = fields.get(column)
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, place or column)
    if not isinstance(value, str):
        raise Unusable(Reason.WRONG_TYPE, place or column)
    return value


def chat_of(fields: Mapping[str, Any], column: str) -> str:
    """A chat as a JSON list of {role, content}; ShareGPT's from and value are taken, too, and a list within a string."""
    value = fields.get(column)
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, column)
    if isinstance(value, str):
        value = decode_value(value)
    if not isinstance(value, list):
        raise Unusable(Reason.WRONG_TYPE, column)
    chat = [_message(message, f"{column}[{place}]") for place, message in enumerate(value)]
    if not any(message["role"] == "assistant" and message["content"].strip() for message in chat):
        raise Unusable(Reason.NO_ANSWER, column)
    return json.dumps(chat, ensure_ascii=False, separators=(",", ":"))


def _message(message: Any, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Unusable(Reason.WRONG_TYPE, place)
    names = ("from", "value") if "from" in message else ("role", "content")
    role, content = (_text(message, name, f"{place}.{name}") for name in names)
    if role.lower() not in ROLES:
        raise Unusable(Reason.WRONG_TYPE, f"{place}.{names[0]}")
    check_text(content, f"{place}.{names[1]}")
    return {"role": ROLES[role.lower()], "content": content}


def _there_are(counts: Mapping[str, int]) -> str:
    names = [_quoted(name) for name in list(counts)[:20]]
    more = f" and {len(counts) - 20} more" if len(counts) > 20 else ""
    return f"There are {', '.join(names)}{more}." if names else "There are no columns."


def _quoted(name: str) -> str:
    return f"'{excerpt(name, 60)}'"
