"""Secrets and personal data in columns of text: found, counted, and masked.

    findings = find(texts)              rows, spans, and kinds as arrays
    masked = mask(texts, findings, key) the same rows with placeholders
    scrub(columns, policy, key)         both for the columns of a batch, and what a policy says of each row

How it is fast: rows are one run of bytes (segments.py). One pass finds where literals stand that secrets begin with or stand
behind (secrets.py), and vectorised comparisons find signs and runs of digits of the right lengths (runs.py). A pattern and a
check digit see only those places, in windows of bounded size, so that time is linear in the text, whatever is in it.

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
