"""Check digits: whether a number can be what it looks like. Each takes digits (and letters) without separators."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import mul

Check = Callable[[str], bool]

_VERHOEFF_PRODUCT = [[(a + b) % 5 if b < 5 else 5 + (a + b) % 5 for b in range(10)] for a in range(5)] + [
    [5 + (a - b) % 5 if b < 5 else (a - b) % 5 for b in range(10)] for a in range(5, 10)
]
_VERHOEFF_SHIFT = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)

# The lengths of an IBAN, by country: SWIFT's registry, release 99.
_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 "
    "FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
    "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 "
    "RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}

# Issuers' prefixes, and how many digits their cards have.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:30[0-5]|3[689]\d)\d{11}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|62\d{14,17}"  # UnionPay
    r"|(?:50(?:18|20|38)|5893|6304|6759|676[1-3])\d{12}"  # Maestro
)
_DOUBLED = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}
_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_FISCALE_ODD = dict(
    zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True),
) | dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)
_FISCALE = re.compile(r"[A-Z]{6}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z]")
_INSEE = re.compile(r"[12]\d{2}(?:0[1-9]|1[0-2]|[2-3]\d|4[0-2]|[5-9]\d)\d{10}")
_SSN_NEVER_ISSUED = frozenset({"078051120", "219099999", "123456789"})  # printed on samples and in advertisements


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = sum(map(_DOUBLED.__getitem__, digits[-2::-2]))
    return (doubled + sum(map(int, digits[::-2]))) % 10 == 0


def payment_card(digits: str) -> bool:
    return _CARD.fullmatch(digits) is not None and luhn(digits)


def iban(text: str) -> bool:
    """ISO 13616: the country's length, and ISO 7064 mod 97-10."""
    if len(text) != IBAN_LENGTHS.get(text[:2]) or not text[2:4].isdigit():
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def ssn(digits: str) -> bool:
    """United States: areas 000, 666, and from 900, group 00, and serial 0000 are never issued."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
        return False
    return len(set(digits)) > 1 and digits not in _SSN_NEVER_ISSUED


def nino(text: str) -> bool:
    """United Kingdom: prefixes that are in use, and no more, for there is no check digit."""
    return _NINO.fullmatch(text) is not None


def steuer_id(digits: str) -> bool:
    """Germany: of the first ten digits one stands two or three times, and the last is by ISO 7064 mod 11,10."""
    counts = sorted(digits[:10].count(digit) for digit in set(digits[:10]))
    if digits[0] == "0" or counts[-1] not in (2, 3) or counts[-2] > 1:
        return False
    product = 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def insee(digits: str) -> bool:
    """France: sex, year, and month of birth are possible, and the last two digits are 97 less the rest modulo 97."""
    return _INSEE.fullmatch(digits) is not None and 97 - int(digits[:13]) % 97 == int(digits[13:])


def dni(text: str) -> bool:
    """Spain: eight digits, and the letter of their remainder by 23."""
    return text[:8] != "00000000" and _DNI_LETTERS[int(text[:8]) % 23] == text[8]


def nie(text: str) -> bool:
    """Spain, for residents from abroad: X, Y, and Z stand for a first digit of 0, 1, and 2."""
    return _DNI_LETTERS[int(str("XYZ".index(text[0])) + text[1:8]) % 23] == text[8]


def codice_fiscale(text: str) -> bool:
    """Italy: the last letter is a sum of all others, weighed by whether their place is odd or even."""
    if not _FISCALE.fullmatch(text):
        return False
    odd = sum(_FISCALE_ODD[character] for character in text[0:15:2])
    even = sum(int(character, 36) - (0 if character.isdigit() else 10) for character in text[1:15:2])
    return chr(ord("A") + (odd + even) % 26) == text[15]


def bsn(digits: str) -> bool:
    """The Netherlands: the eleven-test, in which the last digit counts negatively."""
    total = sum(int(digit) * weight for digit, weight in zip(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True))
    return total % 11 == 0 and len(set(digits)) > 1


def aadhaar(digits: str) -> bool:
    """India: never begins with 0 or 1; Verhoeff's check digit; a palindrome is not issued."""
    return digits[0] > "1" and verhoeff(digits) and digits != digits[::-1]


def verhoeff(digits: str) -> bool:
    """J. Verhoeff, Error Detecting Decimal Codes, 1969."""
    check = 0
    for place, character in enumerate(reversed(digits)):
        digit = int(character)
        for _ in range(place % 8):
            digit = _VERHOEFF_SHIFT[digit]
        check = _VERHOEFF_PRODUCT[check][digit]
    return check == 0


def cpf(digits: str) -> bool:
    """Brazil: two check digits modulo 11; numbers of one digit only pass the sum and are refused."""
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(map(mul, map(int, digits[:length]), range(length + 1, 1, -1)))
        if total * 10 % 11 % 10 != int(digits[length]):
            return False
    return True
