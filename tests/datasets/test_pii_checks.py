"""Check digits, against examples that their authorities publish, and each of them with a digit changed."""

from __future__ import annotations

import pytest

from datasets.pipeline.pii import checks

PUBLISHED = [
    (checks.luhn, "79927398713"),
    (checks.payment_card, "4111111111111111"),
    (checks.payment_card, "378282246310005"),
    (checks.payment_card, "30569309025904"),
    (checks.payment_card, "6011111111111117"),
    (checks.payment_card, "3566002020360505"),
    (checks.payment_card, "2223003122003222"),
    (checks.payment_card, "6200000000000005"),
    (checks.iban, "GB82WEST12345698765432"),
    (checks.iban, "DE89370400440532013000"),
    (checks.iban, "MT84MALT011000012345MTLCAST001S"),
    (checks.iban, "NO9386011117947"),
    (checks.iban, "SC18SSCB11010000000000001497USD"),
    (checks.steuer_id, "86095742719"),
    (checks.steuer_id, "47036892816"),
    (checks.steuer_id, "65929970489"),
    (checks.insee, "255081416802538"),
    (checks.dni, "12345678Z"),
    (checks.nie, "X1234567L"),
    (checks.nie, "Z1234567R"),
    (checks.codice_fiscale, "RSSMRA85T10A562S"),
    (checks.codice_fiscale, "MRTMTT91D08F205J"),
    (checks.bsn, "111222333"),
    (checks.verhoeff, "2363"),
    (checks.aadhaar, "234123412346"),
    (checks.cpf, "52998224725"),
    (checks.cpf, "11144477735"),
]


@pytest.mark.parametrize(("check", "number"), PUBLISHED)
def test_a_published_example_passes_and_no_neighbour_of_it_does(check: checks.Check, number: str) -> None:
    assert check(number)
    for place, character in enumerate(number):
        if character.isdigit():
            for digit in set("0123456789") - {character}:
                assert not check(f"{number[:place]}{digit}{number[place + 1 :]}"), (place, digit)


@pytest.mark.parametrize(
    "number", ["5105105105105100"[:-1], "41111111111111111", "9111111111111111", "1111111111111117", "0000000000000000"]
)
def test_a_card_needs_an_issuer_and_its_length(number: str) -> None:
    assert not checks.payment_card(number)


@pytest.mark.parametrize("number", ["000123456", "666123456", "900123456", "123006789", "123450000", "111111111"])
def test_a_social_security_number_that_is_never_issued(number: str) -> None:
    assert not checks.ssn(number)
    assert checks.ssn("536904399")


@pytest.mark.parametrize("text", ["BG123456A", "QQ123456C", "DA123456A", "AO123456A", "AB123456E", "ZZ123456A"])
def test_a_national_insurance_number_with_a_prefix_that_is_not_used(text: str) -> None:
    assert not checks.nino(text)
    assert checks.nino("JG103759A")


@pytest.mark.parametrize("digits", ["11111111111", "00000000000", "99999999999"])
def test_a_cpf_of_one_digit_passes_the_sum_and_is_refused(digits: str) -> None:
    assert not checks.cpf(digits)


def test_verhoeff_sees_each_transposition_of_neighbours_where_luhn_misses_one() -> None:
    assert checks.verhoeff("2363") and not checks.verhoeff("2633") and not checks.verhoeff("3263")
    assert checks.luhn("109") == checks.luhn("190")
