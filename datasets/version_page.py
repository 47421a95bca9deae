"""What an operator sees of a version: its steps, lengths, and a look into its files, as parts of the admin's page."""

from __future__ import annotations

from itertools import chain
from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse

from common.jobs import JobStatus
from common.text import one_line
from datasets import rows
from datasets.exports import SPLITS
from datasets.models import DatasetVersion
from datasets.pipeline.stored.export import FIELDS, ExportFormat

ROWS = 5  # of each split
REASONS = 12
REJECTIONS = 3  # of each reason
PLACES = 5  # of each kind
CLUSTERS = 10
SHOWN_CHARACTERS = 400

BAR_WIDTH, LEAST_WIDTH = 160, 2
CHART_HEIGHT, BIN_WIDTH, LABEL_HEIGHT = 90, 44, 30


def summary(version: DatasetVersion) -> str:
    """What became of the rows: steps, reasons, splits, findings, lengths, and where to go from here."""
    context = {
        "version": version,
        "steps": [step_row(step) for step in version.steps],
        "charts": [chart(each) for each in version.length_histograms],
        "links": _links(version),
    }
    return render_to_string("admin/datasets/version_summary.html", context)


def look(version: DatasetVersion) -> str:
    """Some rows, rejections by reason, masked places, and clusters of near-duplicates."""
    if version.status != JobStatus.SUCCEEDED:
        return "Nothing before it is made."
    if not version.storage_prefix:
        return "Its dataset was deleted."
    try:
        context = {
            "previews": [(split.lower(), _preview(version, split)) for split in SPLITS],
            "rejections": _rejections(version),
            "places": _places(version),
            "clusters": rows.duplicate_clusters(version, first=CLUSTERS),
        }
    except FileNotFoundError:
        return "Its files are not in storage."
    return render_to_string("admin/datasets/version_look.html", context)


def step_row(step: dict[str, Any]) -> dict[str, Any]:
    """A step with its bar: how much of what it was given it passed on. Whatever was dropped or kept is seen."""
    if not step["rows_in"]:
        return {**step, "bar": {"width": BAR_WIDTH, "kept": 0, "dropped": 0}}
    kept = round(BAR_WIDTH * step["rows_kept"] / step["rows_in"])
    kept = max(kept, LEAST_WIDTH) if step["rows_kept"] else 0
    kept = min(kept, BAR_WIDTH - LEAST_WIDTH) if step["rows_kept"] < step["rows_in"] else BAR_WIDTH
    return {**step, "bar": {"width": BAR_WIDTH, "kept": kept, "dropped": BAR_WIDTH - kept}}


def chart(histogram: dict[str, Any]) -> dict[str, Any]:
    """A histogram as places in a drawing: whoever is there is seen."""
    most = max(each["rows"] for each in histogram["bins"])
    bars = []
    for place, each in enumerate(histogram["bins"]):
        height = max(1, round(CHART_HEIGHT * each["rows"] / most)) if each["rows"] else 0
        bars.append(
            {
                **each,
                "x": place * BIN_WIDTH,
                "middle": place * BIN_WIDTH + BIN_WIDTH // 2,
                "y": CHART_HEIGHT - height + 14,
                "height": height,
                "label": short(each["at_least"]),
            }
        )
    return {
        **histogram,
        "bars": bars,
        "bar_width": BIN_WIDTH - 4,
        "width": BIN_WIDTH * len(bars),
        "height": CHART_HEIGHT + 14 + LABEL_HEIGHT,
        "base": CHART_HEIGHT + 14,
        "label_y": CHART_HEIGHT + 14 + 16,
    }


def short(count: int) -> str:
    """1024 is 1k, as people say it of such bounds."""
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if count >= size:
            return f"{count // size}{unit}"
    return str(count)


def _preview(version: DatasetVersion, split: str) -> list[list[tuple[str, str]]]:
    """The first rows, each as (field, text) of what it has."""
    return [
        [(name, _shown(value)) for name in FIELDS if (value := row[name]) is not None]
        for row in rows.preview(version, split, ROWS)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        value = "\n\n".join(f"{message['role']}: {message['content']}" for message in value)
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


def _rejections(version: DatasetVersion) -> list[dict[str, Any]]:
    """By reason, the most frequent first."""
    reasons = sorted(chain.from_iterable(step["reasons"] for step in version.steps), key=lambda each: -each["count"])
    return [
        {
            **reason,
            "rows": [
                row for _, row in rows.rejections(version, first=REJECTIONS, after=None, reason=reason["key"]).rows
            ],
        }
        for reason in reasons[:REASONS]
    ]


def _places(version: DatasetVersion) -> list[dict[str, Any]]:
    """By kind, in the order of the findings."""
    found = rows.samples(version)["masked_places"]
    kinds = list(dict.fromkeys(place["kind"] for place in found))
    return [{"kind": kind, "places": [place for place in found if place["kind"] == kind][:PLACES]} for kind in kinds]


def _links(version: DatasetVersion) -> dict[str, Any] | None:
    if version.status != JobStatus.SUCCEEDED:
        return None
    made: dict[str, Any] = {"card": reverse("admin:datasets_datasetversion_card", args=[version.pk]), "exports": []}
    if version.storage_prefix:
        address = reverse("admin:datasets_datasetversion_export", args=[version.pk])
        made["exports"] = [
            (
                one_line(f"{each.lower()}, {split.lower() if split else 'all'}", 40),
                f"{address}?format={each}&split={split}",
            )
            for each in ExportFormat
            for split in ("", *SPLITS)
        ]
    return made
