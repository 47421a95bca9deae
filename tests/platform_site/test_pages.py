"""The platform's own pages, who may ask the API what, and the admin: everything short of a browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import get_template
from django.test import Client
from django.urls import reverse
from graphql import parse, validate

from accounts.models import User
from common.tenancy import operator
from platform_site.schema import schema
from tests.cast import PASSWORD, Person, make_person
from tests.platform_site.history import make_history
from tests.web import serving

HTML = {"Accept": "text/html,application/xhtml+xml"}
INTROSPECTION = "{ __schema { queryType { name } } }"
STATIC = Path(__file__).resolve().parents[2] / "platform_site" / "static"
OUR_MODELS = [
    model
    for app in ("accounts", "datasets", "training", "inference")
    for model in apps.get_app_config(app).get_models()
]


class Page(HTMLParser):
    """The addresses that a page names, and whether it carries a script of its own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.inline_scripts = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag == "a":
            self.links.append(named["href"] or "")
        elif tag == "script" and "src" not in named:
            self.inline_scripts += 1
        else:
            self.loads += [value for name, value in attributes if value and name in {"src", "href", "data-examples"}]
        self.inline_scripts += sum(name.startswith("on") for name in named)


def code_of(answer: dict[str, Any]) -> str:
    assert answer["data"] is None
    return answer["errors"][0]["extensions"]["code"]


# ------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("path", ["/", "/graphql"])
def test_a_page_loads_only_what_we_serve(client: Client, path: str) -> None:
    page = Page(client.get(path, headers=HTML).content.decode())
    assert page.inline_scripts == 0
    assert len(page.loads) >= 2
    for address in page.loads:
        assert address.startswith("/static/"), address
        assert finders.find(address.removeprefix("/static/")), address
        assert client.get(address).status_code == 200


@pytest.mark.parametrize("sheet", sorted(STATIC.rglob("*.css")), ids=lambda sheet: sheet.name)
def test_a_style_sheet_loads_nothing_from_elsewhere(sheet: Path) -> None:
    css = sheet.read_text()
    assert "@import" not in css
    assert {address[:5] for address in re.findall(r"url\(\s*[\"']?([^)\"']+)", css)} <= {"data:"}


def test_the_front_page_leads_everywhere(client: Client, db: None) -> None:
    page = Page(client.get("/").content.decode())
    assert page.links == ["/", "/graphql", "/admin/", "/readyz"]
    with serving() as url:
        for link in page.links:
            assert httpx.get(f"{url}{link}", headers=HTML, follow_redirects=True).status_code == 200


def test_the_front_page_of_production_has_no_door_to_graphiql(client: Client, settings: Any) -> None:
    settings.PRODUCTION = True
    assert "/graphql" not in Page(client.get("/").content.decode()).links


def test_files_of_others_are_unmodified() -> None:
    vendor = STATIC / "graphiql" / "vendor"
    rows = re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (vendor / "VENDORED.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == {file.name for file in vendor.iterdir() if file.suffix in {".js", ".css"}}
    for name, digest in rows:
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name


def test_the_examples_of_graphiql_are_good_graphql() -> None:
    examples = parse((STATIC / "graphiql" / "examples.graphql").read_text())
    assert validate(schema._schema, examples) == []


def test_the_admins_styles_come_without_collectstatic(client: Client, settings: Any) -> None:
    assert not Path(settings.STATIC_ROOT).exists()
    response = client.get("/static/unfold/css/styles.css")
    assert (response.status_code, response["Content-Type"]) == (200, 'text/css; charset="utf-8"')


@pytest.mark.parametrize("name", ["400", "403", "403_csrf", "404", "500"])
def test_a_page_of_refusal_says_what_to_do_and_leads_back(client: Client, name: str) -> None:
    page = Page(get_template(f"{name}.html").render())  # as Django does for a 500: with no request at hand
    assert page.links == ["/", "/", "/admin/"]
    assert page.inline_scripts == 0
    for address in page.loads:
        assert client.get(address).status_code == 200


def test_who_mistypes_an_address_is_told_so_in_our_page(client: Client, db: None) -> None:
    answer = client.get("/nothing")
    assert (answer.status_code, answer.templates[0].name) == (404, "404.html")
    refused = Client(enforce_csrf_checks=True).post("/admin/login/", {})
    assert (refused.status_code, refused.templates[0].name) == (403, "403_csrf.html")


# ------------------------------------------------------------------------------------------------ who may ask


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (INTROSPECTION, "introspection"),
        ('{ __type(name: "User") { name } }', "introspection of one type"),
        ("{ me { email } }", "a query"),
        ("{ __typename me { email } }", "a query beside something harmless"),
        ("fragment All on Query { me { email } } { ...All }", "a query in a fragment"),
        ("{ ... on Query { __schema { queryType { name } } } }", "introspection in an inline fragment"),
        ("{ nothingOfThisName }", "a wrong query: its error would tell of the schema"),
        ("{ baseModels { name } }", "a query that concerns no organization"),
    ],
)
def test_a_query_needs_a_token(anonymous: Callable[..., dict[str, Any]], document: str, why: str) -> None:
    assert code_of(anonymous(document)) == "UNAUTHENTICATED", why


def test_whether_anybody_answers_may_be_asked_by_all(anonymous: Callable[..., dict[str, Any]]) -> None:
    assert anonymous("{ __typename }") == {"data": {"__typename": "Query"}}


def test_people_who_are_signed_in_may_introspect(alice: Person) -> None:
    assert alice.ask(INTROSPECTION) == {"data": {"__schema": {"queryType": {"name": "Query"}}}}


def test_nobody_introspects_in_production(alice: Person, settings: Any) -> None:
    settings.PRODUCTION = True
    answer = alice.ask(INTROSPECTION)
    assert answer["data"] is None
    assert answer["errors"][0]["message"] == (
        "GraphQL introspection has been disabled, but the requested query contained the field '__schema'."
    )
    assert alice.data("{ me { email } }") == {"me": {"email": "alice@example.com"}}
    settings.PRODUCTION = False
    assert "errors" not in alice.ask(INTROSPECTION)  # an answer of one is not kept for the other


def test_an_account_is_made_and_entered_without_a_token(anonymous: Callable[..., dict[str, Any]]) -> None:
    session = "{ ... on Session { refreshToken user { email } } }"
    signup = f"mutation ($input: SignupInput!) {{ answer: signup(input: $input) {session} }}"
    login = f"mutation ($input: LoginInput!) {{ answer: login(input: $input) {session} }}"
    refresh = f"mutation ($input: RefreshTokenInput!) {{ answer: refreshToken(input: $input) {session} }}"
    dora = {"email": "dora@example.com", "password": PASSWORD}
    anonymous(signup, input=dora)
    opened = anonymous(login, input=dora)["data"]["answer"]
    renewed = anonymous(refresh, input={"refreshToken": opened["refreshToken"]})["data"]["answer"]
    assert opened["user"] == renewed["user"] == {"email": "dora@example.com"}


def test_a_subscription_by_post_is_told_where_to_go(alice: Person) -> None:
    answer = alice.ask('subscription { trainingRunEvents(id: "x") { sequence } }')
    assert [error["message"] for error in answer["errors"]] == [
        "Send subscriptions over the websocket at this address, or to /graphql/stream."
    ]


@pytest.mark.parametrize(
    ("production", "method", "headers", "status"),
    [
        (False, "get", HTML, 200),
        (False, "get", {}, 405),
        (False, "put", HTML, 405),
        (True, "get", HTML, 405),
        (True, "get", {}, 405),
    ],
)
def test_graphiql_is_for_browsers_outside_production(
    client: Client, settings: Any, production: bool, method: str, headers: dict[str, str], status: int
) -> None:
    settings.PRODUCTION = production
    response = getattr(client, method)("/graphql?query={__typename}", headers=headers)
    assert response.status_code == status
    assert status != 405 or response["Allow"] == "POST"


# ------------------------------------------------------------------------------------------------ the admin


@pytest.fixture
def operations(client: Client, db: None) -> Client:
    """A superuser in the admin, and two organizations with a history."""
    for name in ("Alice", "Charlie"):
        make_history(make_person(name))
    client.force_login(User.objects.create_superuser("ops@example.com", PASSWORD))
    return client


@pytest.mark.parametrize("model", OUR_MODELS, ids=lambda model: model._meta.label)
def test_each_model_has_pages_over_all_organizations(operations: Client, model: Any) -> None:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    page = operations.get(reverse(f"{name}_changelist"), {"q": "a"})
    assert page.status_code == 200
    page = operations.get(reverse(f"{name}_changelist"))
    with operator():
        rows = list(model.objects.all())
    assert len(rows) >= 2
    assert page.context["cl"].result_count == len(rows)
    for row in rows[:2]:
        detail = operations.get(reverse(f"{name}_change", args=[row.pk]))
        assert detail.status_code == 200
        assert str(row.pk) in detail.content.decode()
    may_add = admin.site._registry[model].has_add_permission(page.wsgi_request)
    assert operations.get(reverse(f"{name}_add")).status_code == (200 if may_add else 403)


def test_the_list_of_pages_names_ours_and_no_queue(operations: Client) -> None:
    index = operations.get("/admin/")
    listed = {app["app_label"] for app in index.context["available_apps"]}
    assert listed == {"accounts", "auth", "common", "datasets", "training"}


def test_history_is_not_edited(operations: Client) -> None:
    with operator():
        run = apps.get_model("training.TrainingRun").objects.first()
    address = reverse("admin:training_trainingrun_change", args=[run.pk])
    assert operations.post(address, {"name": "another"}).status_code == 403
    with operator():
        run.refresh_from_db()
    assert run.name != "another"


def test_createsuperuser_makes_an_operator(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", "--noinput", "--email", "Ops@Example.com", verbosity=0)
    answer = client.post("/admin/login/?next=/admin/", {"username": "OPS@example.com", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert client.get("/admin/").status_code == 200


def test_who_opens_the_login_page_itself_comes_to_the_list_of_pages(client: Client, db: None) -> None:
    User.objects.create_superuser("ops@example.com", PASSWORD)
    answer = client.post("/admin/login/", {"username": "ops@example.com", "password": PASSWORD}, follow=True)
    assert (answer.redirect_chain, answer.status_code) == ([("/admin/", 302)], 200)


def test_a_time_is_shown_to_the_second_and_with_its_zone(operations: Client) -> None:
    with operator():
        run = apps.get_model("training.TrainingRun").objects.first()
    shown = f"{run.created_at:%Y-%m-%d %H:%M:%S}\N{NO-BREAK SPACE}UTC"
    for address in (
        reverse("admin:training_trainingrun_changelist"),
        reverse("admin:training_trainingrun_change", args=[run.pk]),
    ):
        assert shown in operations.get(address).content.decode()


def test_a_user_made_by_an_operator_can_log_in(operations: Client, anonymous: Callable[..., dict[str, Any]]) -> None:
    inline = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    form = {"email": "Dora@Example.com", "name": "Dora", "password1": PASSWORD, "password2": PASSWORD, **inline}
    assert operations.post(reverse("admin:accounts_user_add"), form).status_code == 302
    login = "mutation ($input: LoginInput!) { login(input: $input) { ... on Session { user { email } } } }"
    answer = anonymous(login, input={"email": "dora@example.com", "password": PASSWORD})
    assert answer["data"]["login"]["user"]["email"] == "dora@example.com"


def test_the_admin_is_for_staff(alice: Person) -> None:
    client = Client()
    client.force_login(alice.user)
    headers = {"Authorization": f"Bearer {alice.token}"}
    for address in ("/admin/", reverse("admin:training_trainingrun_changelist")):
        answer = client.get(address, headers=headers)
        assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={address}")
