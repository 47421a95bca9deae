"""A version's card in Markdown: what it was made of, how, what became of the rows, and what it does not promise.

What people named themselves is escaped: it shows as it is, and makes neither markup nor links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from common.jobs import JobStatus
from common.text import one_line
from datasets.models import DatasetVersion

BAR_CHARACTERS = 30
MAX_NAME_CHARACTERS = 300
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!:$@]|(?<=www)\.", re.IGNORECASE)

COLUMNS = (
    *("number", "status", "recipe", "steps", "splits", "pii_findings", "length_histograms", "rows_in", "rows_kept"),
    *("size_bytes", "fingerprint", "finished_at", "dataset__name", "dataset__deleted_at"),
    *("upload__file_name", "upload__size_bytes", "upload__sha256", "parent__number"),
)
"""What it is made of, for whoever reads no more of a row."""


def card(version: DatasetVersion) -> str | None:
    """The card; None before the version is made."""
    if version.status != JobStatus.SUCCEEDED:
        return None
    sections = [
        [f"# {escaped(version.dataset.name)}, version {version.number}", *_about(version)],
        ["## Data", *_data(version)],
        ["## Recipe", *_recipe(version.recipe)],
        ["## Steps", *_steps(version.steps)],
        ["## Splits", *_splits(version.splits)],
        ["## Secrets and personal data", *_findings(version)],
        ["## Lengths", *_lengths(version.length_histograms)],
        ["## Limits", *_limits(version.recipe)],
    ]
    return "\n".join("\n\n".join(section) + "\n" for section in sections)


def escaped(text: str) -> str:
    """As Markdown, on one line: what reads as `text`."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text, MAX_NAME_CHARACTERS))


def _about(version: DatasetVersion) -> Iterator[str]:
    if version.dataset.deleted_at is not None:
        yield "Its dataset was deleted: of its rows nothing is left but these figures."
    made = f"made {version.finished_at:%Y-%m-%d %H:%M} UTC" if version.finished_at else "made at an unknown time"
    same = (
        "bytes, recipe, and pipeline"
        if version.parent is None
        else "bytes, recipe, and pipeline, and the same version before,"
    )
    yield f"{_count(version.rows_kept)} of {_count(version.rows_in)} rows, {made}.  \nFingerprint `{version.fingerprint}`: the same {same} give the same."


def _data(version: DatasetVersion) -> Iterator[str]:
    upload = version.upload
    if version.parent is not None:
        yield f"Its rows are those of version {version.parent.number}, whose card tells of them, and those that this upload added:"
    columns = {name: column for name, column in version.recipe.get("columns", {}).items() if column}
    yield _table(
        ("", ""),
        [
            ("file", escaped(upload.file_name)),
            ("bytes", f"{upload.size_bytes:,}"),
            ("sha256", f"`{upload.sha256}`" if upload.sha256 else "unknown"),
            ("format", escaped(str(version.recipe.get("format", "unknown")))),
            *((f"{name} from", escaped(column)) for name, column in columns.items()),
            ("bytes in storage" if version.parent is None else "bytes added to storage", _count(version.size_bytes)),
        ],
    )


def _recipe(recipe: dict[str, Any]) -> Iterator[str]:
    yield _table(
        ("choice", "value"),
        [
            (name.replace("_", " "), escaped(_chosen(value)))
            for name, value in recipe.items()
            if name not in ("format", "columns")
        ],
    )


def _chosen(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_chosen(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        said = ({name: inner for name, inner in each.items() if inner is not None} for each in value)
        return "; ".join(map(_chosen, said)) or "none"
    if value is None:
        return "off"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _steps(steps: list[dict[str, Any]]) -> Iterator[str]:
    if not steps:
        yield "Not recorded."
        return
    rows = [
        (
            escaped(step["name"]),
            step["status"].lower(),
            *(f"{step.get(name, 0):,}" for name in ("rows_in", "rows_kept", "rows_dropped", "rows_changed")),
            ", ".join(f"{escaped(reason['key'])} {reason['count']:,}" for reason in step["reasons"]),
        )
        for step in steps
    ]
    yield _table(("step", "", "in", "kept", "dropped", "changed", "dropped why"), rows)


def _splits(splits: list[dict[str, Any]]) -> Iterator[str]:
    if not splits:
        yield "Not recorded."
        return
    total = sum(split["rows"] for split in splits) or 1
    rows = [
        (split["name"].lower(), f"{split['rows']:,}", f"{split['rows'] / total:.1%}", f"{split['bytes']:,}")
        for split in splits
    ]
    yield _table(("split", "rows", "share", "bytes"), rows)


def _findings(version: DatasetVersion) -> Iterator[str]:
    became = {"MASK": "masked", "DROP": "left out with their rows", "KEEP": "kept, and only counted"}
    pii, secrets = (became.get(str(version.recipe.get(name)), "not looked for") for name in ("pii", "secrets"))
    if not any(step["name"] == "pii" for step in version.steps):
        yield "Not looked for."
        return
    yield f"Secrets are {secrets}; personal data is {pii}."
    if version.pii_findings:
        yield _table(
            ("kind", "found"), [(escaped(found["key"]), f"{found['count']:,}") for found in version.pii_findings]
        )
    else:
        yield "None was found."


def _lengths(histograms: list[dict[str, Any]]) -> Iterator[str]:
    if not histograms:
        yield "Not recorded."
        return
    yield "In characters; of a chat, those of its messages' contents."
    for histogram in histograms:
        figures = f"{histogram['shortest']:,} to {histogram['longest']:,}, {histogram['mean']:,} on average"
        yield f"{escaped(histogram['field'])}: {figures}"
        yield "\n".join(["```text", *_bars(histogram["bins"]), "```"])


def _bars(bins: list[dict[str, Any]]) -> Iterator[str]:
    most = max(each["rows"] for each in bins)
    names = [f"{each['at_least']:,} to {each['at_most']:,}" for each in bins]
    width = max(map(len, names))
    for name, each in zip(names, bins, strict=True):
        bar = "#" * -(-each["rows"] * BAR_CHARACTERS // most)  # whoever is there is seen
        yield f"{name:>{width}}  {bar:<{BAR_CHARACTERS}}  {each['rows']:,}"


def _limits(recipe: dict[str, Any]) -> Iterator[str]:
    limits = [
        "Nobody has read these rows: whether they are right, and may be used, is for whoever uploaded them to know."
    ]
    if not recipe.get("exact_dedup", True):
        limits.append("Equal rows were not looked for.")
    if recipe.get("near_dedup") is None:
        limits.append("Near-duplicates were not looked for: rows that are much alike may stand in different splits.")
    else:
        limits.append(
            "Near-duplicates are found by shared wording, about 99 of 100 at the threshold, not by meaning: paraphrases stay."
        )
    if recipe.get("names"):
        limits.append(
            "Secrets and personal data are found by form and check digit. Names of people are found by a model, in what is no code: it "
            "passes over some, and takes other words for names. Postal addresses, and what has no form, are not found."
        )
    else:
        limits.append(
            "Secrets and personal data are found by form and check digit. Names of people, postal addresses, and what has no form "
            "are not found, and what is found may be none."
        )
    for name, what in (("pii", "personal data"), ("secrets", "secrets")):
        if recipe.get(name) == "KEEP":
            limits.append(f"What was found of {what} is still in the rows.")
    limits.append(
        "Splits are by a hash of a row's group, or of its content where it has none: time plays no part in them."
    )
    yield "\n".join(f"- {limit}" for limit in limits)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _count(count: int | None) -> str:
    return "an unknown number" if count is None else f"{count:,}"
