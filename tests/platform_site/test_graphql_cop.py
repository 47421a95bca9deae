"""The checks of graphql-cop, each as a test of the same name as the one in its lib/tests that it comes from.

All of them are asked as somebody who is signed in, too, where that could make a difference.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from tests.cast import Person

pytestmark = pytest.mark.django_db

CIRCULAR = (
    "query { __schema { types { fields { type { fields { type { fields { type { fields "
    "{ type { name } } } } } } } } } } }"
)
HTML = {"Accept": "text/html"}


@pytest.fixture(params=["anonymous", "signed in"])
def headers(request: pytest.FixtureRequest, alice: Person) -> dict[str, str]:
    return {"Authorization": f"Bearer {alice.token}"} if request.param == "signed in" else {}


def post(client: Client, headers: dict[str, str], body: Any) -> Any:
    return client.post("/graphql", json.dumps(body), content_type="application/json", headers=headers)


def code_of(answer: Any) -> str:
    """Of an answer's only error; it has no data."""
    content = answer.json()
    (error,) = content["errors"]
    assert content["data"] is None
    return error["extensions"]["code"]


def test_dos_alias_overloading(client: Client, headers: dict[str, str]) -> None:
    aliases = " ".join(f"alias{number}:__typename \n" for number in range(101))
    assert code_of(post(client, headers, {"query": f"query {{ {aliases} }}"})) == "TOO_MANY_ALIASES"


def test_dos_batch(client: Client, headers: dict[str, str]) -> None:
    answer = post(client, headers, [{"query": "query { __typename }"}] * 10)
    assert (answer.status_code, b"__typename" in answer.content) == (400, False)


def test_dos_circular_introspection(client: Client, headers: dict[str, str]) -> None:
    assert code_of(post(client, headers, {"query": CIRCULAR})) == "TOO_DEEP"


def test_dos_circular_fragment(client: Client, headers: dict[str, str]) -> None:
    circle = "query { ...A } fragment A on Query { __typename ...B } fragment B on Query { ...A }"
    assert code_of(post(client, headers, {"query": circle})) == "TOO_DEEP"


def test_dos_directive_overloading(client: Client, headers: dict[str, str]) -> None:
    overloaded = "query { __typename " + "@aa" * 10 + " }"
    assert code_of(post(client, headers, {"query": overloaded})) == "TOO_MANY_DIRECTIVES"


def test_dos_field_duplication(client: Client, headers: dict[str, str]) -> None:
    duplicated = "query { " + "__typename \n" * 500 + "} "
    assert code_of(post(client, headers, {"query": duplicated})) == "TOO_MANY_REPEATS"


@pytest.mark.parametrize(
    "document", ["query { __schema { directive } }", "query { me { emial } }", "mutation { logni }"]
)
def test_info_field_suggestions(client: Client, headers: dict[str, str], document: str) -> None:
    answer = post(client, headers, {"query": document})
    assert answer.json()["data"] is None
    assert "did you mean" not in answer.content.decode().lower()


@pytest.mark.parametrize("path", ["/graphql", "/graphql/stream"])
@pytest.mark.parametrize("production", [False, True])
def test_info_get_based_mutation(
    client: Client, headers: dict[str, str], settings: Any, production: bool, path: str
) -> None:
    settings.PRODUCTION = production
    answer = client.get(path, {"query": "mutation {__typename}"}, headers=headers)
    assert (answer.status_code, answer["Allow"], answer.content) == (405, "POST", b"")


@pytest.mark.parametrize("path", ["/graphql", "/graphql/stream"])
@pytest.mark.parametrize("production", [False, True])
def test_info_get_method_support(
    client: Client, headers: dict[str, str], settings: Any, production: bool, path: str
) -> None:
    settings.PRODUCTION = production
    answer = client.get(path, {"query": "query {__typename}"}, headers=headers)
    assert (answer.status_code, answer["Allow"], answer.content) == (405, "POST", b"")


@pytest.mark.parametrize("path", ["/graphiql", "/playground", "/console", "/graphql"])
def test_info_graphiql(client: Client, headers: dict[str, str], settings: Any, path: str) -> None:
    settings.PRODUCTION = True
    answer = client.get(path, headers=headers | HTML)
    assert answer.status_code in (404, 405)
    for word in ("graphiql.min.css", "GraphQL Playground", "GraphiQL", "graphql-playground"):
        assert word not in answer.content.decode()


def test_info_introspect(client: Client, headers: dict[str, str], settings: Any) -> None:
    settings.PRODUCTION = True
    answer = post(client, headers, {"query": "query { __schema { types { name fields { name } } } }"}).json()
    assert answer["data"] is None and answer["errors"]


@pytest.mark.parametrize("path", ["/graphql", "/graphql?query=query%20%7B__typename%7D"])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
def test_info_post_based_csrf(client: Client, headers: dict[str, str], path: str, kind: str) -> None:
    bodies = {
        "application/x-www-form-urlencoded": "query=query+%7B__typename%7D",
        "text/plain": '{"query": "query {__typename}"}',
        "multipart/form-data; boundary=x": (
            '--x\r\nContent-Disposition: form-data; name="operations"\r\n\r\n{"query": "{__typename}"}\r\n--x--\r\n'
        ),
    }
    answer = client.post(path, bodies[kind], content_type=kind, headers=headers)
    assert (answer.status_code, b"Query" in answer.content) == (400, False)


def test_info_trace_mode(client: Client, headers: dict[str, str]) -> None:
    traced = post(client, headers, {"query": "query { __typename }"}).json()
    assert traced == {"data": {"__typename": "Query"}}
    failed = post(
        client, headers | {"X-Apollo-Tracing": "1"}, {"query": "query { datasets(first: 101) { totalCount } }"}
    )
    (error,) = failed.json()["errors"]
    assert "tracing" not in failed.json().get("extensions", {}) and "stacktrace" not in failed.content.decode().lower()
    assert error["extensions"].keys() <= {"code", "field"}


def test_info_unhandled_error(client: Client, headers: dict[str, str]) -> None:
    (error,) = post(client, headers, {"query": "qwerty cop { abc }"}).json()["errors"]
    assert error == {"message": "Syntax Error: Unexpected Name 'qwerty'.", "locations": [{"line": 1, "column": 1}]}
