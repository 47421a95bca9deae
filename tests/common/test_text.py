"""What a name may be."""

import pytest

from common.errors import Invalid
from common.text import plain_text, shortened


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


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    assert [shortened("abcdefghij", limit) for limit in (10, 9, 4)] == ["abcdefghij", "abcde…hij", "ab…j"]
