"""What a person may see of a secret or of personal data: enough to tell a mistake from a find, and too little to use it.

A secret shows no character of its own: only how its provider has all of them begin, and roughly how long it is. Personal
data shows its shape, with each letter and each digit as any other; an address by mail its first letters.
"""

from __future__ import annotations

from datasets.pipeline.pii.kinds import SECRETS, Kind

ROUGHLY = 10
LONG = 100

# How all keys of a kind begin: their makers have published it.
_PUBLIC_STARTS = (
    *("-----BEGIN", "AKIA", "ASIA", "github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "xoxb-", "xoxp-"),
    *("xoxa-", "xoxr-", "xoxs-", "xapp-", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "AIza", "GOCSPX-"),
    *("sk-ant-", "sk-proj-", "sk-", "hf_", "npm_", "pypi-", "SG.", "eyJ"),
)


def hint(kind: Kind, value: str) -> str:
    """A few characters in the place of `value`, which is not among them."""
    if kind in SECRETS:
        start = next((start for start in _PUBLIC_STARTS if value.startswith(start)), "")
        return f"{start}… ({_length(len(value))} characters)"
    return _address(value) if kind is Kind.EMAIL else "".join(map(_shape, value))


def _length(count: int) -> str:
    if count >= LONG:
        return f"{LONG} or more"
    least = count // ROUGHLY * ROUGHLY
    return f"{least} to {least + ROUGHLY - 1}" if least else f"under {ROUGHLY}"


def _address(value: str) -> str:
    """al…@e….com: of names that are short, less."""
    name, _, host = value.rpartition("@")
    domain, _, last = host.rpartition(".")
    return f"{name[: (len(name) >= 3) + (len(name) >= 5)]}…@{domain[: len(domain) >= 3]}….{last}"


def _shape(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return character
