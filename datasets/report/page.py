"""One HTML file that asks nobody for anything: our bias numbers in words and tables, and Evidently's report of the sample."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset, DataSummaryPreset

from datasets.report.sample import MIN_HELD_OUT, Sample

STYLE = """
.ours { font: 15px/1.5 system-ui, sans-serif; color: #1c1b22; max-width: 62rem; margin: 2rem auto; padding: 0 1.5rem }
.ours h1 { font-size: 1.6rem } .ours h2 { font-size: 1.15rem; margin-top: 2rem }
.ours table { border-collapse: collapse; width: 100% }
.ours th, .ours td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
.ours td.n, .ours th.n { text-align: right; font-variant-numeric: tabular-nums }
"""
ICON = '<link rel="icon" href="data:,">'


def page(sample: Sample, title: str, bias: dict[str, Any] | None) -> str:
    """Of the user's words there are but labels, groups, and the title, all escaped."""
    theirs = _evidently(sample)
    head, _, rest = theirs.partition("</head>")
    opening, body, rest = rest.partition("<body>")
    assert body, "Evidently's page has a body"
    own = f"<title>{escape(title)}</title>{ICON}<style>{STYLE}</style>"
    return f"{head}{own}</head>{opening}{body}{_ours(sample, title, bias)}{rest}"


def _evidently(sample: Sample) -> str:
    """What is held out, compared with what is trained on, where there is enough of it; otherwise a summary of all."""
    rows = pd.DataFrame({**sample.numbers, **sample.categories})
    definition = DataDefinition(numerical_columns=list(sample.numbers), categorical_columns=list(sample.categories))
    parts = [
        Dataset.from_pandas(rows[chosen].reset_index(drop=True), data_definition=definition)
        for chosen in (sample.held_out, ~sample.held_out)
    ]
    if min(sample.held_out.sum(), (~sample.held_out).sum()) >= MIN_HELD_OUT:
        result = Report([DataDriftPreset(), DataSummaryPreset()]).run(*parts)
    else:
        result = Report([DataSummaryPreset()]).run(Dataset.from_pandas(rows, data_definition=definition), None)
    html: str = result.get_html_str(as_iframe=False)
    return html


def _ours(sample: Sample, title: str, bias: dict[str, Any] | None) -> str:
    compared = min(sample.held_out.sum(), (~sample.held_out).sum()) >= MIN_HELD_OUT
    below = (
        "below, the held-out rows (current) are compared with those of train (reference)"
        if compared
        else f"there are fewer than {MIN_HELD_OUT} held-out rows, so that below is a summary of all"
    )
    return (
        f'<main class="ours"><h1>{escape(title)}</h1>'
        f"<p>Of {sample.total:,} rows {sample.num_rows:,} were drawn at random for the charts; {below}. "
        "The numbers on bias are of all rows.</p>"
        f"{_bias(bias) if bias else '<p>The recipe left out the numbers on bias.</p>'}<h2>Charts</h2></main>"
    )


def _bias(bias: dict[str, Any]) -> str:
    look_at = "".join(f"<li>{escape(sentence)}</li>" for sentence in bias["look_at"])
    coverage = [
        [axis["axis"], group["group"], f"{group['rows']:,}", f"{group['share']:.1%}"]
        for axis in bias["coverage"]
        for group in axis["groups"]
    ]
    together = [
        [group["group"], f"{group['rows']:,}", *(_rate(group[value]) for value in ("positive", "negative", "toxic"))]
        for group in bias["associations"]
    ]
    labels = [
        [one["label"], f"{one['rows']:,}", f"{one['share']:.1%}"] for one in (bias["labels"] or {}).get("values", [])
    ]
    return (
        f"<h2>What to look at</h2>{f'<ul>{look_at}</ul>' if look_at else '<p>Nothing stands out.</p>'}"
        f"<p>{bias['toxicity']['rows']:,} of {bias['rows']:,} rows hold an insult or profanity; "
        f"{bias['rows_with_identity']:,} mention a group of people.</p>"
        + _table("Whom rows mention", ["By", "Group", "Rows", "Share"], coverage, 2)
        + _table("In what words", ["Group", "Rows", "Favourable", "Unfavourable", "Insults"], together, 1)
        + _table("Labels", ["Label", "Rows", "Share"], labels, 1)
    )


def _rate(told: dict[str, Any]) -> str:
    ratio = f" ({told['ratio']:.2f} times as often as others)" if told["ratio"] is not None else ""
    return f"{told['rate']:.1%}{ratio}"


def _table(heading: str, columns: list[str], rows: list[list[str]], words: int) -> str:
    """The first `words` columns are words, the others numbers. Nothing, where there are no rows."""
    if not rows:
        return ""

    def cells(tag: str, values: list[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place >= words else ''}>{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<h2>{heading}</h2><table><tr>{cells('th', columns)}</tr>{lines}</table>"
