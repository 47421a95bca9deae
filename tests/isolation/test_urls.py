"""No address shows anything of an organization to whoever is not of it."""

from __future__ import annotations

import json
from typing import Any

from tests.isolation import urls
from tests.isolation.documents import document, variables
from tests.isolation.places import fields
from tests.isolation.world import World
from tests.platform_site.test_subscriptions import ask, stream
from tests.web import serving

UNAUTHENTICATED = "UNAUTHENTICATED"


def test_every_address_is_in_the_table() -> None:
    urls.check_all_are_known()


def test_pages_show_nothing_of_anybody(world: World) -> None:
    urls.check_pages(world)


def test_the_admin_is_for_staff(world: World) -> None:
    assert len(urls.admin_paths(world)) > 80
    urls.check_admin(world)


def test_files_are_taken_for_a_right_ticket_alone(world: World) -> None:
    urls.check_uploads(world)


def test_files_are_sent_for_a_right_link_alone(world: World) -> None:
    urls.check_files(world)


def test_rows_are_given_to_a_right_link_alone(world: World) -> None:
    urls.check_downloads(world)


def test_a_probe_tells_everybody_the_same(world: World) -> None:
    urls.check_probes(world)


def test_subscriptions_over_sockets_and_streams_find_nothing_of_anothers(world: World) -> None:
    subscriptions = [name for kind, name, _ in fields() if kind == "subscription"]
    with serving() as url:
        for way in (ask, stream):
            for name in subscriptions:
                asked, given = document("subscription", name), variables("subscription", name, world.theirs)
                for who in ("owner", "key of owner", "removed"):
                    answer = way(url, world.askers[who].token, asked, **given)
                    assert world.theirs.word not in json.dumps(answer)
                    assert errors(answer) == ["NOT_FOUND"], (name, who)
        for name in subscriptions:  # a socket of nobody's is closed
            asked, given = document("subscription", name), variables("subscription", name, world.theirs)
            assert errors(stream(url, None, asked, **given)) == [UNAUTHENTICATED]


def errors(payloads: list[Any]) -> list[str]:
    """The codes: a socket sends errors as a list, a stream as a part of an answer."""
    told = [error for payload in payloads for error in (payload["errors"] if isinstance(payload, dict) else payload)]
    return [error["extensions"]["code"] for error in told]
