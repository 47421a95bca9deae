"""The recipe of a dataset version: what a person may choose, validated, with every default filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from datasets.pipeline.expectation import MAX_EXPECTATIONS, Expectation, Unclear
from datasets.pipeline.names.model import NamesModel
from datasets.pipeline.near.choices import NearDedup

SHARES_TOLERANCE = 1e-6
MAX_COLUMN_NAME_CHARACTERS = 1_000
MAX_ROW_CHARACTERS = 1_000_000  # no line of an upload may be longer


class RecipeError(ValueError):
    """A choice that cannot be followed: the field in dotted form, and a sentence that says what it should look like."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Format(StrEnum):
    """JSON: an array of objects, or an object with one array. PYTHON: a source file or a zip of them, never executed."""

    AUTO = "AUTO"
    JSON = "JSON"
    JSONL = "JSONL"
    CSV = "CSV"
    PARQUET = "PARQUET"
    PYTHON = "PYTHON"


class PythonUnits(StrEnum):
    """What becomes a row of Python source: functions and classes as prompt and completion, whole modules as text."""

    FUNCTIONS = "FUNCTIONS"
    CLASSES = "CLASSES"
    MODULES = "MODULES"


class Action(StrEnum):
    """What becomes of a finding: MASK replaces it, DROP leaves its row out, KEEP counts only."""

    MASK = "MASK"
    DROP = "DROP"
    KEEP = "KEEP"


@dataclass(frozen=True)
class ColumnMapping:
    """Names of the upload's columns, where they are not to be recognised by themselves; null means recognise."""

    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    messages: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        for name, column in asdict(self).items():
            if column is None:
                continue
            if not isinstance(column, str) or not column or len(column) > MAX_COLUMN_NAME_CHARACTERS:
                raise RecipeError(f"columns.{name}", "must be the name of a column, or null")
        pair = bool(self.prompt or self.completion)
        if pair + bool(self.text) + bool(self.messages) > 1:
            raise RecipeError("columns", "map prompt and completion, or text, or messages: a row has one shape")


@dataclass(frozen=True)
class Split:
    """The shares of the three splits, which sum to 1, and the seed of the hash that assigns rows to them."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    seed: int = 17

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            share = getattr(self, name)
            if not _is_number(share) or not math.isfinite(share) or not 0 <= share <= 1:
                raise RecipeError(f"split.{name}", "must be a share between 0 and 1")
            object.__setattr__(self, name, float(share))  # 1 and 1.0 are the same recipe
        if self.train == 0:
            raise RecipeError("split.train", "must be more than 0: nothing would be left to train on")
        total = self.train + self.validation + self.test
        if abs(total - 1) > SHARES_TOLERANCE:
            raise RecipeError("split", f"train, validation, and test must sum to 1; they sum to {total:.6g}")
        if not _is_whole(self.seed) or not -(2**31) <= self.seed < 2**31:
            raise RecipeError("split.seed", "must be a whole number of 32 bits")


@dataclass(frozen=True)
class Recipe:
    """What is done to an upload.

    format          AUTO recognises it by content
    python_units    what becomes a row of Python source
    columns         overrides of the recognised columns
    min_characters  of a completion, a text, or all messages of a chat, without surrounding whitespace
    max_characters  of a whole row
    expectations    of the upload's own columns; rows that are otherwise are dropped, or fail the version
    exact_dedup     drops rows whose content occurred before
    near_dedup      drops rows that are much like another; null: does not
    pii, secrets    what becomes of personal data, and of keys, tokens, and passwords
    names           the model that finds names of people, which are personal data then; null: they are not looked for
    bias            counts of whom rows speak, and how
    split           shares and seed
    """

    format: Format = Format.AUTO
    python_units: PythonUnits = PythonUnits.FUNCTIONS
    columns: ColumnMapping = field(default_factory=ColumnMapping)
    min_characters: int = 1
    max_characters: int = 200_000
    expectations: tuple[Expectation, ...] = ()
    exact_dedup: bool = True
    near_dedup: NearDedup | None = field(default_factory=NearDedup)
    pii: Action = Action.MASK
    secrets: Action = Action.MASK
    names: NamesModel | None = None
    bias: bool = True
    split: Split = field(default_factory=Split)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "format", Format(self.format))
        except ValueError:
            raise RecipeError("format", f"must be one of {', '.join(Format)}") from None
        try:
            object.__setattr__(self, "python_units", PythonUnits(self.python_units))
        except ValueError:
            raise RecipeError("python_units", f"must be one of {', '.join(PythonUnits)}") from None
        if not _is_whole(self.min_characters) or self.min_characters < 0:
            raise RecipeError("min_characters", "must be a whole number, 0 or more")
        if not _is_whole(self.max_characters) or not 1 <= self.max_characters <= MAX_ROW_CHARACTERS:
            raise RecipeError("max_characters", f"must be a whole number between 1 and {MAX_ROW_CHARACTERS:,}")
        if self.min_characters > self.max_characters:
            raise RecipeError("min_characters", "must not exceed max_characters")
        for name in ("exact_dedup", "bias"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(name, "must be true or false")
        for name in ("pii", "secrets"):
            try:
                object.__setattr__(self, name, Action(getattr(self, name)))
            except ValueError:
                raise RecipeError(name, f"must be one of {', '.join(Action)}") from None

    def to_json(self) -> dict[str, Any]:
        """Strict JSON with every default filled in; `from_json` gives an equal recipe back."""
        enums = {name: getattr(self, name).value for name in ("format", "python_units", "pii", "secrets")}
        return {**asdict(self), **enums, "expectations": [one.to_json() for one in self.expectations]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Recipe:
        """A recipe from JSON, in which fields may be missing (their defaults) but not unknown. Raises RecipeError."""
        chosen = _known(cls, value, "")
        if "columns" in chosen:
            chosen["columns"] = ColumnMapping(**_known(ColumnMapping, chosen["columns"], "columns."))
        if "expectations" in chosen:
            chosen["expectations"] = _expectations(chosen["expectations"])
        if chosen.get("near_dedup") is not None:
            chosen["near_dedup"] = _near_dedup(_known(NearDedup, chosen["near_dedup"], "near_dedup."))
        if chosen.get("names") is not None:
            chosen["names"] = _names(_known(NamesModel, chosen["names"], "names."))
        if "split" in chosen:
            chosen["split"] = Split(**_known(Split, chosen["split"], "split."))
        return cls(**chosen)


def _expectations(chosen: Any) -> tuple[Expectation, ...]:
    if not isinstance(chosen, (list, tuple)) or len(chosen) > MAX_EXPECTATIONS:
        raise RecipeError("expectations", f"must be a list of at most {MAX_EXPECTATIONS} expectations")
    return tuple(_expectation(one, f"expectations.{place}") for place, one in enumerate(chosen))


def _expectation(chosen: Any, place: str) -> Expectation:
    known = _known(Expectation, chosen, f"{place}.")
    for name in ("column", "check"):
        if name not in known:
            raise RecipeError(f"{place}.{name}", "must be given")
    try:
        return Expectation(**known)
    except Unclear as error:
        raise RecipeError(f"{place}.{error.field}", error.message) from None


def _near_dedup(chosen: dict[str, Any]) -> NearDedup:
    for name, value in chosen.items():
        if not (_is_number if name == "threshold" else _is_whole)(value):
            raise RecipeError(
                f"near_dedup.{name}", "must be a number" if name == "threshold" else "must be a whole number"
            )
    try:
        return NearDedup(**chosen)
    except ValueError as error:
        name, _, message = str(error).partition(" ")
        raise RecipeError(f"near_dedup.{name}", message) from None


def _names(chosen: dict[str, Any]) -> NamesModel:
    for one in fields(NamesModel):
        if one.name not in chosen:
            raise RecipeError(f"names.{one.name}", "must be given")
    try:
        return NamesModel(**chosen)
    except ValueError as error:
        name, _, message = str(error).partition(" ")
        raise RecipeError(f"names.{name}", message) from None


def _known(cls: type[Any], value: Any, prefix: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecipeError(prefix.rstrip(".") or "recipe", "must be an object")
    names = {one.name for one in fields(cls)}
    for name in value:
        if name not in names:
            raise RecipeError(f"{prefix}{name}", f"unknown field; there are {', '.join(sorted(names))}")
    return dict(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
