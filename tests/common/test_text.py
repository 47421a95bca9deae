"""What a name may be, and what PostgreSQL can hold."""

import time

import pytest

from common.errors import Invalid
from common.text import is_storable, plain_text


@pytest.mark.parametrize(
    "name", ["a", "  a b  ", "Bildschirmfoto 2026-11-22 um 9.41.07\u202fAM.png", "数据", "👩\u200d💻"]
)
def test_names_that_people_and_systems_give(name: str) -> None:
    assert plain_text(name, "name", 60) == name.strip()


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "a\nb", "\x1b[31mred", "gpj.\u202eexe", "\ud800", "a" * 61])
def test_names_that_nobody_could_read_or_store(name: str) -> None:
    with pytest.raises(Invalid, match="name should be 1 to 60 characters") as refused:
        plain_text(name, "name", 60)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    ("text", "can"), [("", True), ("數\U0001f469", True), ("a\x00", False), ("\ud83d\udc69", False)]
)
def test_what_postgresql_can_hold(text: str, can: bool) -> None:
    assert is_storable(text) is can


def test_a_text_of_any_length_is_looked_through_in_little_time() -> None:
    """Anybody may send two megabytes as an address, in each of ten mutations."""
    text = "a" * 20_000_000
    begun = time.process_time()
    assert is_storable(text)
    assert time.process_time() - begun < 0.2  # character by character it takes a second
