"""The pages in a real browser, against the real web process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser import PATIENCE_MS, Visit, browsing, log_in, make_operator
from tests.cast import PASSWORD, make_person
from tests.platform_site.history import make_history
from tests.web import web_process
from training.models import Adapter

pytestmark = pytest.mark.django_db(transaction=True)

OURS = ("accounts", "datasets", "training", "inference")
expect.set_options(timeout=PATIENCE_MS)
EDITOR = "document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror"


@pytest.fixture
def adapter(settings: Any) -> Adapter:
    """What Alice's training left; Charlie has a history, too, and there is an operator."""
    make_operator(settings)
    make_history(make_person("Charlie"))
    return make_history(make_person("Alice"))


@pytest.fixture(scope="module")
def site(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web process that serves the test's database."""
    with web_process(tmp_path_factory.mktemp("site")) as url:
        yield url


@pytest.fixture
def page(adapter: Adapter, site: str) -> Iterator[Page]:
    with browsing() as page:
        yield page


@pytest.fixture
def visit(page: Page, site: str) -> Visit:
    return Visit(page, site)


def sign_in(page: Page, password: str) -> None:
    page.get_by_label("E-mail").fill("alice@example.com")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def run(page: Page, document: str, expected: str) -> None:
    """Put `document` into the editor, run it, and wait until the answer has `expected` in it."""
    page.wait_for_selector(".graphiql-query-editor .CodeMirror")
    page.evaluate(f"text => {EDITOR}.setValue(text)", document)
    # it is parsed a moment later, and until then the old document would be run
    page.wait_for_function(f"text => {EDITOR}.documentAST?.loc.source.body === text", arg=document)
    page.locator(".graphiql-query-editor textarea").press("Control+Enter")
    expect(page.locator(".result-window")).to_contain_text(expected)


def test_graphiql_signs_in_asks_and_watches(page: Page, site: str, visit: Visit, adapter: Adapter) -> None:
    page.goto(f"{site}/graphql")
    expect(page.locator(".graphiql-container")).to_have_count(0)
    sign_in(page, "not the password")
    expect(page.get_by_role("alert")).to_have_text("The address or the password is not right.")
    sign_in(page, PASSWORD)
    expect(page.locator("#who")).to_have_text("alice@example.com")

    run(page, "{ me { email memberships { role } } }", '"role": "OWNER"')
    run(page, "{ datasets { edges { node { name } } } }", "Alice's functions")
    expect(page.locator(".result-window")).not_to_contain_text("Charlie's functions")
    run_id = page.evaluate("key => btoa(`TrainingRun:${key}`)", str(adapter.training_run_id))
    run(
        page,
        f'subscription {{ trainingRunEvents(id: "{run_id}") {{ sequence ... on StatusChanged {{ status }} }} }}',
        "SUCCEEDED",
    )

    page.get_by_label("Show Documentation Explorer").click()  # the schema came by introspection
    expect(page.locator(".graphiql-doc-explorer")).to_contain_text("StartTrainingRunInput")
    assert visit == []


def test_graphiql_keeps_a_session_for_its_tab_and_refreshes_it(page: Page, site: str, visit: Visit) -> None:
    page.goto(f"{site}/graphql")
    sign_in(page, PASSWORD)
    expect(page.locator("#who")).to_have_text("alice@example.com")
    session = "JSON.parse(sessionStorage.getItem('platform.session'))"
    before = page.evaluate(session)
    page.evaluate(
        f"sessionStorage.setItem('platform.session', JSON.stringify({{...{session}, expiresAt: '2020-01-01'}}))"
    )
    page.reload()
    run(page, "{ me { email } }", "alice@example.com")
    after = page.evaluate(session)
    assert after["refreshToken"] != before["refreshToken"]
    assert after["expiresAt"] >= before["expiresAt"]
    assert page.evaluate("JSON.stringify(localStorage)").find(after["accessToken"]) == -1

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate(session) is None
    assert visit == []


def test_an_operator_finds_every_model_in_the_admin(page: Page, site: str, visit: Visit) -> None:
    page.goto(f"{site}/")
    page.get_by_role("link", name="Admin").click()
    log_in(page)
    expect(page.get_by_role("heading", name="Site administration")).to_be_visible()

    for app in OURS:
        for model in apps.get_app_config(app).get_models():
            name = f"{model._meta.app_label}_{model._meta.model_name}"
            page.goto(site + reverse(f"admin:{name}_changelist"))
            rows = page.locator("#result_list tbody tr:visible")
            assert rows.count() >= 2, name
            rows.first.locator("a").first.click()
            page.wait_for_url("**/change/")
    font = page.locator("body").evaluate("body => getComputedStyle(body).fontFamily")
    assert font.startswith("Inter"), "the theme's style sheet did not come"
    assert visit == []
