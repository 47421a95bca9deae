"""Which job an operator means."""

from __future__ import annotations

from uuid import UUID

import pytest

from common.errors import Invalid
from common.lookup import find
from common.tenancy import operator
from tests.cast import Person
from tests.rows import global_id, make_run, make_version

RUN, VERSION = UUID("3f2a91c0-aaaa-4000-8000-000000000001"), UUID("3f2a91ff-bbbb-4000-8000-000000000002")


@pytest.fixture(autouse=True)
def _jobs(alice: Person) -> None:
    make_run(alice, make_version(alice, id=VERSION), id=RUN)


def found(text: str) -> UUID:
    with operator():
        key: UUID = find(text).pk
    return key


def refusal(text: str) -> str:
    with operator(), pytest.raises(Invalid) as refused:
        find(text)
    return refused.value.message


@pytest.mark.parametrize("text", ["3f2a91c", "3F2A91C0", "3f2a91c0-aaaa", "3f2a91c0aaaa", str(RUN), RUN.hex])
def test_the_beginning_of_an_id_names_a_job_if_no_other_has_it(text: str) -> None:
    assert found(text) == RUN


def test_any_kind_of_job_is_found_also_by_the_apis_id(alice: Person) -> None:
    assert found("3f2a91ff") == VERSION
    run = make_run(alice)
    assert found(global_id(run)) == run.pk


def test_what_names_none_or_several_is_refused_with_what_to_do(alice: Person) -> None:
    assert refusal("3f2a92") == "No job's id begins with 3f2a92: `manage.py jobs --all` lists them."
    several = refusal("3f2a91")
    assert several.startswith("3f2a91 is the beginning of several ids: ")
    assert "3f2a91c0 (training)" in several and "3f2a91ff (datasets)" in several
    assert several.endswith(". Type more of the one that you mean.")
    for number in range(10):
        make_run(alice, id=UUID(f"77{number:030x}"))
    assert refusal("77").endswith(" and others. Type more of the one that you mean.")


@pytest.mark.parametrize("text", ["", "-", "xyz", "3f2a91c0 ", "0" * 33, "\\x1b[2J", "é", "VXNlcjox"])
def test_what_is_no_id_is_refused(text: str) -> None:
    assert refusal(text).endswith("is no id: one begins with hexadecimal digits, as 3f2a91c0 does.")
