"""Code and prose with entities planted in them, and with what only looks like some; the truth is written beside.

Rows are cut from the standard library, from the packages that are installed, and from the standard library's prose. Rows that
hold by themselves what could be an entity are left out: whether it is one, nobody has said.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from benchmarks.pii.entities import ALNUM, MAKERS

ROW_CHARACTERS = 2_000
ENTITIES_EVERY, NEGATIVES_EVERY = 8, 4  # rows
PROSE_SHARE = 0.25

_SUSPECT = re.compile(
    r"[\w.+-]@\w|\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{1,4}:[0-9a-f]{0,4}:|\d[\d ().\-]{7,}\d|[A-Za-z0-9+/_-]{32,}|://[^/\s]*:"
    r"|(?i:passw|pwd|secret|token|api_?key|bearer|basic |private key)",
    re.ASCII,
)

CODE = {
    "URL_PASSWORD": [
        'engine = create_engine("postgresql://app:{}@db.internal:5432/app")',
        "# redis://:{}@cache:6379/0",
    ],
    "PASSWORD": ['password = "{}"', "    'db_password': '{}',", 'connect(host, user="app", password="{}")'],
    "API_KEY": ['API_KEY = "{}"', "headers = {{'x-api-key': '{}'}}", "export SERVICE_API_KEY={}"],
    "PHONE": ['phone = "{}"', "# call {} if this fails", '    "mobile": "{}",'],
    "SSN": ['ssn = "{}"', "    'ssn': '{}',"],
    "NINO": ['nino = "{}"'],
    "": ['value = "{}"', "# see {}", '    ("{}", 1),', 'print("{}")', '{{"key": "{}"}}'],
}
PROSE = {
    "URL_PASSWORD": ["Point it at mysql://root:{}@10.0.0.7/shop and restart."],
    "PASSWORD": ["The login is admin, password: '{}'"],
    "API_KEY": ["Then set api_key='{}' and try again."],
    "PHONE": ["You can reach me at {} after lunch.", "Phone: {}"],
    "SSN": ["Her social security number is {}."],
    "NINO": ["His National Insurance number is {}."],
    "": ["Please send it to {}, thank you.", "It was {} that we saw in the log.", "Use {} for now."],
}


# Addresses that stand for none, or for no person: whether to find them is a choice, and nobody is judged by it.
EITHER = "EITHER"
ARGUABLE = (
    "contact = 'user@example.com'",
    "host = '192.168.0.17'; loopback = '127.0.0.1'",
    "documentation = '192.0.2.44'",
    "clone = 'git@github.com:org/repo.git'",
)


def negatives(r: random.Random) -> str:
    """A line that has nothing in it."""
    digest = hashlib.sha256(str(r.random()).encode()).hexdigest()
    return r.choice(
        [
            f"__version__ = '{r.randint(1, 9)}.{r.randint(0, 30)}.{r.randint(0, 9)}.{r.randint(1, 9)}'",
            f"# sha256:{digest}",
            f"assert md5(data) == '{digest[:32]}'",
            f"commit {digest[:40]}",
            f"id = '{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}'",
            f"created = '20{r.randint(10, 30)}-0{r.randint(1, 9)}-{r.randint(10, 28)}T12:{r.randint(10, 59)}:30.{r.randint(100000, 999999)}Z'",
            f"timestamp = {r.randint(1_600_000_000_000, 1_799_999_999_999)}",
            f"x = {r.random()}",
            "@functools.cached_property",
            "y = weights@inputs.T + bias",
            "password = os.environ['DB_PASSWORD']",
            "api_key = 'your-api-key-here'",
            "token = get_token(request)",
            f"order = '{_unlucky(r)}'",
            f"offsets = [{', '.join(str(r.randint(0, 99999)) for _ in range(8))}]",
            f"color = '#{digest[:6]}'; mask = 0x{digest[:16]}",
            f"# {'x' * 36} ghp_{'x' * 36}",
            f"etag = 'W/\"{''.join(r.choices(ALNUM, k=22))}\"'",
            "since = '2024-01-15'; until = '15.01.2024'",
            "path = 'icon@2x.png'",
        ]
    )


def _unlucky(r: random.Random) -> str:
    """Sixteen digits as a card has, with a check digit that is wrong."""
    number = MAKERS["PAYMENT_CARD"](r).replace(" ", "").replace("-", "")
    return number[:-1] + str((int(number[-1]) + r.randint(1, 9)) % 10)


def rows(size_bytes: int, seed: int) -> Iterator[tuple[str, list[tuple[int, int, str]]]]:
    """(text, [(start, end, kind)]), until there are so many bytes: the same for the same seed and packages."""
    r = random.Random(seed)
    code, prose = _clean(_sources()), _clean("\n".join(topics.values()) for _ in range(1))
    kinds = list(MAKERS)
    made = number = 0
    while made < size_bytes:
        is_prose = r.random() < PROSE_SHARE
        lines = r.choice(prose if is_prose else code).split("\n")
        planted = (
            [(kind, MAKERS[kind](r)) for kind in r.sample(kinds, r.randint(1, 3))]
            if number % ENTITIES_EVERY == 0
            else []
        )
        extra = [(_sentence(r, PROSE if is_prose else CODE, kind, value), kind, value) for kind, value in planted]
        if number % NEGATIVES_EVERY == 0:
            extra += [(negatives(r), "", "") for _ in range(r.randint(1, 3))]
            arguable = r.choice(ARGUABLE)
            extra.append((arguable, EITHER, arguable))
        text, truth = _joined(r, lines, extra)
        yield text, truth
        made += len(text.encode())
        number += 1


def _sentence(r: random.Random, templates: dict[str, list[str]], kind: str, value: str) -> str:
    return r.choice(templates.get(kind, templates[""])).format(value)


def _joined(
    r: random.Random, lines: list[str], extra: list[tuple[str, str, str]]
) -> tuple[str, list[tuple[int, int, str]]]:
    pieces: list[tuple[str, str, str]] = [(line, "", "") for line in lines]
    for each in extra:
        pieces.insert(r.randint(0, len(pieces)), each)
    truth, length = [], 0
    for line, kind, value in pieces:
        if kind:
            start = length + line.index(value)
            truth.append((start, start + len(value), kind))
        length += len(line) + 1
    return "\n".join(line for line, _, _ in pieces), truth


def _clean(texts: Iterator[str]) -> list[str]:
    found = []
    for text in texts:
        lines, size = [], 0
        for line in text.split("\n"):
            lines.append(line)
            size += len(line) + 1
            if size >= ROW_CHARACTERS:
                whole = "\n".join(lines)
                if not _SUSPECT.search(whole):
                    found.append(whole)
                lines, size = [], 0
    return found


def _sources() -> Iterator[str]:
    for name in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(name)).glob("*/*.py"))[:3_000]:
            try:
                yield path.read_text("utf-8")
            except (UnicodeDecodeError, OSError):
                continue


def write(path: Path, size_bytes: int, seed: int) -> None:
    with path.open("w") as file:
        for text, truth in rows(size_bytes, seed):
            file.write(json.dumps({"text": text, "truth": truth}) + "\n")
