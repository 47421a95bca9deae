"""E-mail and IP addresses of somebody: not those that documentation uses, nor those of a private network.

Not personal are the names that RFC 2606 sets aside and those that people put in their place, the addresses of machines
(noreply@, and git@ before a repository), and all that `ipaddress` does not call global.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import numpy as np

from datasets.pipeline.pii.domains import is_placeholder_domain, is_top_level
from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.runs import Runs
from datasets.pipeline.pii.segments import Positions, Segment, byte_set
from datasets.pipeline.pii.surroundings import after_escape, before, begins, ends, mentions

_LOCAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-"
_LOCAL_SET = byte_set(_LOCAL)
_ALNUM_SET = byte_set(_LOCAL[:62])
MOST_LOCAL_BYTES = 64  # RFC 5321
_DOMAIN = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_MACHINES = re.compile(
    r"(?i)(?:no|do[._-]?not)[._-]?reply|mailer-daemon|postmaster|git|user|username|your\.?name|someone|nobody|you|x+"
)

_VERSION = re.compile(rb"(?i)(?:\bv|version|release|revision|build|\bver|[=~<>!^]=|\boid)[\w.\"']{0,3}[ :=\"'(]{0,4}$")
_ADDRESS = frozenset(
    b"ip ips ipv ipaddr ipaddress addr address host hostname server remote client peer gateway dns".split()
)
_CONTINUES = byte_set(b".-")
_SMALL = 64  # numbers of sections and of versions are small
_INFRASTRUCTURE = frozenset(
    ["1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "208.67.222.222", "208.67.220.220", "1.2.3.4"]
)
_NOT_GLOBAL = re.compile(rb"(?:0|10|127)\.|192\.(?:168|0\.2)\.")  # most that are written; `ipaddress` knows the others
_IPV6 = re.compile(rb"[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}")
_OF_IPV6 = [bytes([code]) for code in b"0123456789:"]
_AT, _POINT, _COLON, _TWO, _THREE = b"@.:23"
_HEXADECIMAL = byte_set(b"0123456789ABCDEFabcdef")


def find_emails(segment: Segment) -> Iterator[Hit]:
    at = np.flatnonzero(segment.codes == _AT)
    at = at[_LOCAL_SET[segment.at(at - 1)] & _ALNUM_SET[segment.at(at + 1)]]
    for position in at.tolist():
        if hit := _email(segment.data, position):
            yield hit


def _email(data: bytes, at: int) -> Hit | None:
    domain = _DOMAIN.match(data, at + 1)
    if domain is None or b"." not in domain[0]:
        return None
    window = data[max(0, at - MOST_LOCAL_BYTES - 8) : at]
    start = after_escape(data, at - len(window) + len(window.rstrip(_LOCAL)))
    local = data[start:at].lstrip(b".+-")
    if not local or len(local) > MOST_LOCAL_BYTES or local.endswith(b"."):
        return None
    name = _registered(domain[0].decode())
    end = at + 1 + len(name)
    if not name or data[end : end + 1] in b"@([_" or _MACHINES.fullmatch(local.decode()) or is_placeholder_domain(name):
        return None
    return Hit(at - len(local), end, Kind.EMAIL)


def _registered(domain: str) -> str:
    """The domain, without a sentence that follows without a space; empty where it is none."""
    labels = domain.split(".")
    while len(labels) > 2 and labels[-1][:1].isupper() and not labels[-2][:1].isupper():
        labels.pop()
    if (
        len(labels) < 2
        or not is_top_level(labels[-1])
        or any(not label or label[0] == "-" or label[-1] == "-" for label in labels)
    ):
        return ""
    return ".".join(labels)


def find_ipv4(runs: Runs) -> Iterator[Hit]:
    count = len(runs.starts) - 3
    if count <= 0:
        return
    dotted = (runs.gaps == 1) & (runs.after == _POINT) & (runs.lengths <= 3)
    first = np.flatnonzero(dotted[:count] & dotted[1 : count + 1])
    first = first[dotted[first + 2] & (runs.lengths[first + 3] <= 3)]
    first = first[~_CONTINUES[runs.before[first]] & runs.may_stand_alone(first, first + 3)]
    data = runs.segment.data
    for start, end in zip(runs.starts[first].tolist(), runs.ends[first + 3].tolist(), strict=True):
        if _is_host(data, start, end):
            yield Hit(start, end, Kind.IPV4)


def _is_host(data: bytes, start: int, end: int) -> bool:
    if _NOT_GLOBAL.match(data, start):
        return False
    if not begins(data, start) or not ends(data, end):
        return False
    if data[start - 1 : start] == b":" and data[start - 2 : start - 1] in _OF_IPV6:
        return False
    if data[end : end + 1] in (b".", b"-") and data[end + 1 : end + 2].isalnum():
        return False
    text = data[start:end].decode()
    if text in _INFRASTRUCTURE or text.endswith(".0.0"):
        return False
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    near = before(data, start, 24)
    if not address.is_global or address.is_multicast or _VERSION.search(near):
        return False
    return any(part >= _SMALL for part in address.packed) or mentions(data, start, _ADDRESS)


def find_ipv6(runs: Runs) -> Iterator[Hit]:
    """Of the global addresses in use, each begins with a group of four digits, the first of which is 2 or 3."""
    segment = runs.segment
    for start in _groups_of_four(runs).tolist():
        match = _IPV6.match(segment.data, start)
        if match and begins(segment.data, start) and segment.data[start - 1 : start] not in (b":", b".", b"-"):
            text = match[0] if match[0].endswith(b"::") else match[0].rstrip(b":")
            follows = segment.data[start + len(text) : start + len(text) + 2]
            if text.count(b":") < 3 or (follows[:1] in (b":", b".") and follows[1:].isalnum()):
                continue
            if ends(segment.data, start + len(text)) and _is_global(text.decode()):
                yield Hit(start, start + len(text), Kind.IPV6)


def _groups_of_four(runs: Runs) -> Positions:
    """Where 2 or 3, three more hexadecimal digits, and a colon stand."""
    at, ends, lengths, follows, found = runs.segment.at, runs.ends, runs.lengths, runs.after, []
    for others in range(4):  # between the run that the first digit is in, and the colon
        starts = ends[(follows == _COLON) & (lengths >= 4 - others)] + (others - 4)
        first = at(starts)
        found.append(starts[(first == _TWO) | (first == _THREE)])
        further = np.flatnonzero(_HEXADECIMAL[follows])
        ends, lengths = ends[further], lengths[further]
        follows = at(ends + (others + 1))
    return np.concatenate(found)


def _is_global(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).is_global
    except ValueError:
        return False
