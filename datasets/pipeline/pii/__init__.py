"""Secrets and personal data in columns of text: found, counted, and masked.

    findings = find(texts)              rows, spans, and kinds as arrays
    masked = mask(texts, findings, key) the same rows with placeholders
    scrub(columns, policy, key)         both for the columns of a batch, and what a policy says of each row

How it is fast: rows, of all columns of a batch, are one run of bytes (segments.py). One pass finds where literals stand that
secrets begin with or stand behind (secrets.py), and vectorised comparisons find signs and runs of digits of the right lengths
(runs.py). What certainly begins nothing is left out for all places at once (`may_begin`, `may_mention`): such a filter may
let through too much, and never too little. A pattern and a check digit see only the places that are left, in windows of bounded
size, so that time is linear in the text, whatever is in it. A masked column is one copy of its bytes (masking.py); one in
which nothing was found is the column itself.

What is not personal: documentation's own (example.com, user@..., 555-0100, 192.0.2.1), addresses of private networks and of
machines, and secrets that the reader has to fill in (xxxx, <your-key>, AKIAIOSFODNN7EXAMPLE).
"""

from datasets.pipeline.pii.finding import ALL, NameFinder, find
from datasets.pipeline.pii.findings import Finding, Findings
from datasets.pipeline.pii.kinds import KINDS, PERSONAL, SECRETS, Kind
from datasets.pipeline.pii.masking import mask
from datasets.pipeline.pii.policy import Policy, Scrubbed, scrub
from datasets.pipeline.pii.preview import Preview, previews
from datasets.pipeline.recipe import Action

__all__ = [
    "ALL",
    "KINDS",
    "PERSONAL",
    "SECRETS",
    "Action",
    "Finding",
    "Findings",
    "Kind",
    "NameFinder",
    "Policy",
    "Preview",
    "Scrubbed",
    "find",
    "mask",
    "previews",
    "scrub",
]
