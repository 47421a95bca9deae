"""Every address of the platform, who may see what there, and whether they do."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any
from uuid import uuid4

import httpx
from django.core import signing
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import User
from datasets import exports, links, signed_links, tickets
from platform_site import asgi
from tests.isolation.askers import Asker
from tests.isolation.flaws import expect_none
from tests.isolation.snapshot import changed, snapshot
from tests.isolation.world import World


class Shows(Enum):
    NOTHING_OF_ANYBODY = "the same to all"
    STAFF_ONLY = "the way to the login, to whoever is no operator"
    SCHEMA = "what the operations of the schema show: the matrix asks each"
    TICKETS = "nothing to whoever has no ticket"
    MODELS = "to each who asks the models that are theirs (tests/isolation/v1.py)"


ADMIN = "admin/"
URLS = {
    "": Shows.NOTHING_OF_ANYBODY,
    "favicon.ico": Shows.NOTHING_OF_ANYBODY,
    "metrics": Shows.NOTHING_OF_ANYBODY,
    "graphql": Shows.SCHEMA,
    "graphql/stream": Shows.SCHEMA,
    ADMIN: Shows.STAFF_ONLY,  # and all below it
}
"""Django's, by the pattern."""
MOVED = {"/favicon.ico": 301}
ROUTES = {
    "/livez": Shows.NOTHING_OF_ANYBODY,
    "/readyz": Shows.NOTHING_OF_ANYBODY,
    "/uploads/": Shows.TICKETS,
    "/files/": Shows.TICKETS,
    "/downloads/": Shows.TICKETS,
    "/v1/": Shows.MODELS,
    "/graphql": Shows.SCHEMA,
    "/graphql/stream": Shows.SCHEMA,
}
"""Those that platform_site.asgi tells apart before Django sees them."""


def patterns(resolver: Any = None, before: str = "") -> Iterator[str]:
    for each in (resolver or get_resolver()).url_patterns:
        route = before + str(each.pattern).removeprefix("^")
        if isinstance(each, URLResolver):
            yield from patterns(each, route)
        elif isinstance(each, URLPattern):
            yield route


def routes() -> set[str]:
    """The paths that the source of `route` names."""
    return set(re.findall(r'"(/[\w/]*)"', inspect.getsource(asgi.route)))


def check_all_are_known() -> None:
    unknown = [route for route in patterns() if route not in URLS and not route.startswith(ADMIN)]
    expect_none(
        [f"the address {route!r} is not in URLS (tests/isolation/urls.py): say what it shows" for route in unknown]
        + [f"the route {path!r} is not in ROUTES (tests/isolation/urls.py)" for path in routes() ^ ROUTES.keys()]
    )


# ---------------------------------------------------------------------------------------------- pages


def check_pages(world: World) -> None:
    """What shows nothing of anybody shows nothing of anybody, whoever asks."""

    def flaws() -> Iterator[str]:
        for path in [f"/{route}" for route, shows in URLS.items() if shows is Shows.NOTHING_OF_ANYBODY]:
            for asker in world.askers.values():
                answer = Client().get(path, headers=bearer(asker))
                if answer.status_code != MOVED.get(path, 200) or words_in(world, answer.content):
                    yield f"{path} as {asker.name}: {answer.status_code}, and {words_in(world, answer.content)}"

    expect_none(flaws())


def check_admin(world: World, below: str = ADMIN) -> None:
    """Nobody but staff gets past the login; a token of the API, or a session of somebody who is no staff, is no key."""
    signed_in = Client()
    signed_in.force_login(world.ours.rows["User"])  # type: ignore[arg-type]
    visitors = [("anonymous", Client(), {})]
    visitors += [(name, Client(), bearer(world.askers[name])) for name in ("owner", "key of owner")]
    visitors += [("a session", signed_in, {})]
    may_nothing = Client()
    may_nothing.force_login(User.objects.create_user(f"{uuid4().hex}@example.com", is_staff=True))

    def flaws() -> Iterator[str]:
        for path in admin_paths(world, below):
            answer = may_nothing.get(path)
            if words_in(world, answer.content):
                yield f"{path} as staff without a permission: {answer.status_code}, and {words_in(world, answer.content)}"
        for path in admin_paths(world, below):
            for name, client, headers in visitors:
                answer = client.get(path, headers=headers)
                if not _leads_to_the_login(path, answer) or words_in(world, answer.content):
                    yield f"{path} as {name}: {answer.status_code} {answer.headers.get('Location', '')}"

    expect_none(flaws())


def admin_paths(world: World, below: str = ADMIN) -> list[str]:
    """Each page of the admin, of a row of theirs where it is of one."""
    own = str(world.theirs.organization.pk)

    def filled(route: str) -> str:
        route = re.sub(r"\(\?P<\w+>[^)]*\)", "accounts", route.rstrip("$"))
        return re.sub(r"<(\w+:)?\w+>", lambda found: "1" if found[1] == "int:" else own, route)

    return [f"/{filled(route)}" for route in patterns() if route.startswith(below)]


def _leads_to_the_login(path: str, answer: Any) -> bool:
    if path == "/admin/login/":
        return bool(answer.status_code == 200)
    to = "/admin/" if path == "/admin/logout/" else "/admin/login/?next="
    return bool(answer.status_code == 302 and answer.headers["Location"].startswith(to))


def bearer(asker: Asker) -> dict[str, str]:
    return {"Authorization": f"Bearer {asker.token}"} if asker.token else {}


def words_in(world: World, content: bytes) -> list[str]:
    return [tenant.word for tenant in (world.ours, world.theirs) if tenant.word.encode() in content]


# ---------------------------------------------------------------------------------------------- files


def check_uploads(world: World) -> None:
    """Bytes are taken for a ticket alone, whoever brings it, and for the upload and the organization that it was made for."""
    before, upload = snapshot(), world.theirs.waiting_upload
    right = tickets.url_for(upload).rpartition("/")[2]
    forged = {
        "of ours for an upload of theirs": signing.dumps(
            [str(world.ours.organization.pk), str(upload.pk)], salt=tickets._SALT
        ),
        "signed for something else": signing.dumps([str(upload.organization_id), str(upload.pk)], salt="x"),
        "with another signature": right[:-2] + ("AA" if right[-2:] != "AA" else "BB"),
        "an id": str(upload.pk),
        "nothing": "",
    }

    def flaws() -> Iterator[str]:
        for what, token in forged.items():
            answers = {asker.name: request("PUT", f"/uploads/{token}", asker, b"ab") for asker in world.askers.values()}
            wrong = {name: answer for name, answer in answers.items() if answer.status_code != 404}
            yield from (f"a ticket {what} as {name}: {answer.status_code}" for name, answer in wrong.items())
            if len({answer.content for answer in answers.values()}) != 1:
                yield f"a ticket {what} is answered differently"
        if tables := changed(before):
            yield f"forged tickets change {', '.join(tables)}"

    expect_none(flaws())


def check_files(world: World) -> None:
    """A file is sent for a link to it alone, whoever brings that: a link is made for whoever may see the file."""
    key = f"{world.theirs.rows['DatasetVersion'].storage_prefix}/train-00000.parquet"  # type: ignore[attr-defined]
    right = links.sign(key, "rows.parquet", "application/octet-stream")
    forged = {
        "that names a key": key,
        "signed for something else": signing.dumps([key, "rows.parquet", "text/html"], salt="x"),
        "with another signature": right[:-2] + ("AA" if right[-2:] != "AA" else "BB"),
        "of nothing that there is": links.sign(f"{key}.bak", "rows.parquet", "text/html"),
        "of two words": signing.dumps([key, "rows.parquet"], salt=links._SALT),
        "nothing": "",
    }
    expect_none(_flaws_of_links(world, f"/files/{right}", {what: f"/files/{token}" for what, token in forged.items()}))


def check_downloads(world: World) -> None:
    """Rows are given to a link alone, whoever brings it, and of the version and the organization that it was made for."""
    version = world.theirs.rows["DatasetVersion"]
    values = [str(world.theirs.organization.pk), str(version.pk), "JSONL", "", "nobody"]
    right = _download_of(values)
    forged = {
        "of ours for a version of theirs": _download_of([str(world.ours.organization.pk), *values[1:]]),
        "signed for something else": signing.dumps(values, salt="x"),
        "that is a ticket": tickets.url_for(world.theirs.waiting_upload).rpartition("/")[2],
        "with another signature": right[:-2] + ("AA" if right[-2:] != "AA" else "BB"),
        "an id": str(version.pk),
        "nothing": "",
    }
    forged = {what: f"/downloads/{token}" for what, token in forged.items()}
    expect_none(_flaws_of_links(world, f"/downloads/{right}", forged))


def _download_of(values: list[str]) -> str:
    return signed_links.url_of(exports.PURPOSE, values).rpartition("/")[2]


def _flaws_of_links(world: World, right: str, forged: dict[str, str]) -> Iterator[str]:
    answer = request("GET", right, world.askers["anonymous"])
    if answer.status_code != 200 or world.theirs.word.encode() not in answer.content:
        yield "a right link gives no rows"
    for what, path in forged.items():
        answers = {asker.name: request("GET", path, asker) for asker in world.askers.values()}
        wrong = {name: answer for name, answer in answers.items() if answer.status_code != 404}
        yield from (f"a link {what} as {name}: {answer.status_code}" for name, answer in wrong.items())
        if len({answer.content for answer in answers.values()}) != 1:
            yield f"a link {what} is answered differently"


def check_probes(world: World) -> None:
    for path, shows in ROUTES.items():
        if shows is Shows.NOTHING_OF_ANYBODY:
            told = {request("GET", path, asker).content for asker in world.askers.values()}
            expect_none([f"{path} says {sorted(told)}"] if len(told) != 1 else [])


def request(method: str, path: str, asker: Asker, content: bytes = b"") -> httpx.Response:
    """Through all of platform_site.asgi; `path` is as it stands in a URL."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=asgi.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, content=content, headers=bearer(asker))

    return asyncio.run(send())
