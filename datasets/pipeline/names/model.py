"""Which model finds names: where it lies, and what tells it from any other. spaCy is not imported for this."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PERSON_LABELS = frozenset({"PERSON", "PER", "PRS", "PS", "persName"})  # as the corpora of spaCy's models have it
_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST = re.compile("[0-9a-f]{64}")
_MOST_CHARACTERS = 200


class NamesUnavailable(Exception):
    """Names cannot be looked for: a code, what is wrong, and what an operator can do.

    `told` is for those who have asked for it, who need not know where the operator's files lie.
    """

    def __init__(self, code: str, message: str, hint: str, told: str = "") -> None:
        super().__init__(f"{message} {hint}")
        self.code = code
        self.message = message
        self.hint = hint
        self.told = told or (
            "This platform has no model at work that finds names of people. Ask its operators, whom `manage.py check` and "
            "the log tell why, or turn names off in the recipe."
        )


@dataclass(frozen=True)
class NamesModel:
    """What a model is known by: its name, its version, and the sha256 of its files."""

    name: str
    version: str
    sha256: str

    def __post_init__(self) -> None:
        """Raises ValueError, whose first word is the field."""
        for field, value in asdict(self).items():
            if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARACTERS or not value.isprintable():
                raise ValueError(f"{field} must be a text of at most {_MOST_CHARACTERS} characters")
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")

    def __str__(self) -> str:
        return f"{self.name} {self.version} (sha256 {self.sha256[:12]}...)"


@dataclass(frozen=True)
class Place:
    """Where a model lies. `target` is what spaCy loads: the name of a package, or a folder; `data` has its config.cfg."""

    target: str
    folder: Path
    data: Path
    name: str
    version: str


def located(setting: str) -> Place:
    """The model that PII_NAMES_MODEL names: a package, or a folder. Raises NamesUnavailable, also where spaCy is missing."""
    if not setting:
        raise NamesUnavailable(
            "NAMES_MODEL_MISSING",
            "This platform has no model that finds names of people.",
            "Its operators install one, and set PII_NAMES_MODEL.",
        )
    if not _is_there("spacy"):
        raise NamesUnavailable(
            "NAMES_MODEL_MISSING",
            "PII_NAMES_MODEL is set, and the package spacy is not installed.",
            "Install spacy and the model into the platform's environment, on each host, or leave PII_NAMES_MODEL unset.",
        )
    folder = _folder(setting)
    meta = _meta(folder, setting)
    name, version = f"{meta['lang']}_{meta['name']}", str(meta["version"])
    data = folder / f"{name}-{version}"  # within a package, whose own folder has no more than meta.json
    data = data if data.is_dir() else folder
    if not (data / "config.cfg").is_file():
        raise _no_model(setting, "it has no config.cfg")
    if not _labels(meta) & PERSON_LABELS:
        raise NamesUnavailable(
            "NAMES_MODEL_UNUSABLE",
            f"The model {name} of PII_NAMES_MODEL has no label for people.",
            f"Take one whose ner or entity_ruler has one of {', '.join(sorted(PERSON_LABELS))}.",
        )
    return Place(setting if _is_package(setting) else str(folder), folder, data, name, version)


def installed(setting: str) -> NamesModel:
    """What the model is known by. Its files are read once, and again when one has changed. Raises NamesUnavailable."""
    place = located(setting)
    try:
        return NamesModel(place.name, place.version, _digest(place.folder, _state(place.folder)))
    except OSError as error:
        raise _no_model(setting, f"{error.strerror or error}") from error
    except ValueError as error:
        raise _no_model(setting, f"its {error}") from error


def changed(asked: NamesModel, there: NamesModel) -> NamesUnavailable:
    """Rows that one model has read are not added to another's: the same name would be masked in some of them alone."""
    message = f"Names of people were to be found by {asked}, and this platform has {there} now."
    hint = "Make a new version of all rows, which the model that is there reads."
    return NamesUnavailable("NAMES_MODEL_CHANGED", message, hint, f"{message} {hint}")


def _is_package(setting: str) -> bool:
    return _PACKAGE.fullmatch(setting) is not None


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # imported by hand, without a spec
        return True


def _folder(setting: str) -> Path:
    if not _is_package(setting):
        return Path(setting).expanduser().resolve()
    spec = find_spec(setting)
    if spec is None or not spec.submodule_search_locations:
        raise NamesUnavailable(
            "NAMES_MODEL_MISSING",
            f"PII_NAMES_MODEL names the package {setting}, which is not installed.",
            "Install it into the platform's environment, on each host; a folder is named with a slash in it.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _meta(folder: Path, setting: str) -> dict[str, Any]:
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        if not {"lang", "name", "version"} <= meta.keys():
            raise _no_model(setting, "its meta.json does not say which one it is")
    except OSError as error:
        raise _no_model(setting, f"its meta.json cannot be read: {error.strerror or error}") from error
    except (ValueError, AttributeError) as error:
        raise _no_model(setting, "its meta.json is not one of spaCy's") from error
    return dict(meta)


def _labels(meta: dict[str, Any]) -> set[str]:
    try:
        return {label for each in meta["labels"].values() for label in each}
    except (KeyError, AttributeError, TypeError):
        return set()


def _no_model(setting: str, why: str) -> NamesUnavailable:
    return NamesUnavailable(
        "NAMES_MODEL_MISSING",
        f"PII_NAMES_MODEL is {setting!r}, which is no model of spaCy's: {why}.",
        "Name an installed package, as en_core_web_sm, or a folder that nlp.to_disk has made.",
    )


_State = tuple[tuple[str, int, int], ...]


def _state(folder: Path) -> _State:
    """Of each file its name, size, and time: what is compiled beside them is none of the model's."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(place, name)
            status = path.stat()
            found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


@lru_cache(maxsize=4)
def _digest(folder: Path, state: _State) -> str:
    """Over the names and contents of all files."""
    whole = hashlib.sha256()
    for name, size, _ in state:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{digest} {size} {name}\n".encode())
    return whole.hexdigest()
