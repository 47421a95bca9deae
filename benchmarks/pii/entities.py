"""Secrets and personal data that nobody has, made from a seed; check digits are computed here, not by what is measured."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

ALNUM = string.ascii_letters + string.digits
FIRST = "anna ben carla dmitri elif farid greta hugo ines jonas kofi lena mei nadia omar paula quentin rosa sven tara".split()  # noqa: SIM905
LAST = "abbott baumann costa dubois eriksen fischer garcia huang ivanov jensen keller lopez moreau novak okafor petrov".split()  # noqa: SIM905
HOSTS = [
    "gmail.com",
    "mail.ru",
    "web.de",
    "outlook.com",
    "uni-bonn.de",
    "proton.me",
    "kth.se",
    "acme-corp.io",
    "bbc.co.uk",
]
AREAS = ["212", "415", "305", "617", "702", "512", "206", "404"]  # in use in the United States


def email(r: random.Random) -> str:
    return (
        f"{r.choice(FIRST)}{r.choice('._-')}{r.choice(LAST)}{r.choice(['', str(r.randint(1, 99))])}@{r.choice(HOSTS)}"
    )


def phone(r: random.Random) -> str:
    area, exchange, line = r.choice(AREAS), f"{r.choice('2346789')}{r.randint(20, 99)}", f"{r.randint(1000, 9999)}"
    return r.choice(
        [
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"+1 {area} {exchange} {line}",
            f"+1{area}{exchange}{line}",
            f"+49 30 {r.randint(200000, 999999)}",
            f"+44 20 7{r.randint(100, 999)} {line}",
            f"+33 1 {r.randint(40, 58)} {r.randint(10, 99)} {r.randint(10, 99)} {r.randint(10, 99)}",
        ]
    )


def card(r: random.Random) -> str:
    head = r.choice(["4", "51", "55", "2221", "6011", "37"])
    length = 15 if head == "37" else 16
    body = head + _digits(r, length - 1 - len(head))
    number = body + str(-sum(_luhn(int(digit), place % 2 == 0) for place, digit in enumerate(reversed(body))) % 10)
    if length == 16 and r.random() < 0.5:
        return r.choice(" -").join(number[place : place + 4] for place in range(0, 16, 4))
    return number


def iban(r: random.Random) -> str:
    country, body = r.choice([("DE", _digits(r, 18)), ("GB", "WEST" + _digits(r, 14)), ("NL", "ABNA" + _digits(r, 10))])
    value = int("".join(str(int(character, 36)) for character in f"{body}{country}00"))
    whole = f"{country}{98 - value % 97:02}{body}"
    return whole if r.random() < 0.5 else " ".join(whole[place : place + 4] for place in range(0, len(whole), 4))


def ssn(r: random.Random) -> str:
    return f"{r.choice([*range(100, 666), *range(667, 899)])}-{r.randint(10, 99)}-{r.randint(1000, 9999)}"


def cpf(r: random.Random) -> str:
    digits = [r.randint(0, 9) for _ in range(9)]
    for _ in range(2):
        total = sum(digit * weight for digit, weight in zip(digits, range(len(digits) + 1, 1, -1), strict=True))
        digits.append(0 if total % 11 < 2 else 11 - total % 11)
    text = "".join(map(str, digits))
    return f"{text[:3]}.{text[3:6]}.{text[6:9]}-{text[9:]}"


def nino(r: random.Random) -> str:
    return f"{r.choice('ABCEHJLMPRSW')}{r.choice('ABCEHJLMPRSX')}{_digits(r, 6)}{r.choice('ABCD')}"


def ipv4(r: random.Random) -> str:
    return f"{r.choice([5, 31, 46, 62, 77, 80, 91, 93, 129, 178, 185, 193])}.{r.randint(70, 250)}.{r.randint(1, 254)}.{r.randint(1, 254)}"


def ipv6(r: random.Random) -> str:
    return ":".join([r.choice(["2a02", "2606", "2a00", "2400"]), *(f"{r.randint(0x100, 0xFFFF):x}" for _ in range(7))])


def aws_access_key(r: random.Random) -> str:
    return "AKIA" + _of(r, string.ascii_uppercase + "234567", 16)


def github_token(r: random.Random) -> str:
    return r.choice(["ghp_", "gho_", "ghs_"]) + _of(r, ALNUM, 36)


def slack_token(r: random.Random) -> str:
    return f"xoxb-{_digits(r, 12)}-{_digits(r, 12)}-{_of(r, ALNUM, 24)}"


def stripe_key(r: random.Random) -> str:
    return r.choice(["sk_live_", "rk_live_"]) + _of(r, ALNUM, 24)


def google_key(r: random.Random) -> str:
    return "AIza" + _of(r, ALNUM + "-_", 34) + r.choice(ALNUM)


def openai_key(r: random.Random) -> str:
    return "sk-proj-" + _of(r, ALNUM, 64)


def hugging_face_token(r: random.Random) -> str:
    return "hf_" + _of(r, string.ascii_letters, 34)


def jwt(r: random.Random) -> str:
    claims: list[dict[str, object]] = [
        {"alg": "HS256", "typ": "JWT"},
        {"sub": _digits(r, 10), "name": r.choice(FIRST), "iat": r.randint(10**9, 2 * 10**9)},
    ]
    return ".".join([*(_encoded(claim) for claim in claims), _of(r, ALNUM + "-_", 42) + r.choice(ALNUM)])


def password(r: random.Random) -> str:
    return _of(r, string.ascii_lowercase, 3) + _of(r, string.ascii_uppercase, 3) + _digits(r, 3) + _of(r, "!#*+?", 1)


def api_key(r: random.Random) -> str:
    return _of(r, "0123456789abcdef", r.choice([32, 40]))


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "EMAIL": email,
    "PHONE": phone,
    "PAYMENT_CARD": card,
    "IBAN": iban,
    "SSN": ssn,
    "CPF": cpf,
    "NINO": nino,
    "IPV4": ipv4,
    "IPV6": ipv6,
    "AWS_ACCESS_KEY": aws_access_key,
    "GITHUB_TOKEN": github_token,
    "SLACK_TOKEN": slack_token,
    "STRIPE_KEY": stripe_key,
    "GOOGLE_KEY": google_key,
    "OPENAI_KEY": openai_key,
    "HUGGING_FACE_TOKEN": hugging_face_token,
    "JWT": jwt,
    "URL_PASSWORD": password,
    "PASSWORD": password,
    "API_KEY": api_key,
}


def _digits(r: random.Random, count: int) -> str:
    return _of(r, string.digits, count)


def _of(r: random.Random, characters: str, count: int) -> str:
    return "".join(r.choices(characters, k=count))


def _luhn(digit: int, doubled: bool) -> int:
    return sum(divmod(2 * digit, 10)) if doubled else digit


def _encoded(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
