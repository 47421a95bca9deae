"""The list of adapters in a real browser: an operator looks at their stages, and promotes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from common.tenancy import operator
from tests.browser import SLOW_PAGE_MS, Visit, browsing, log_in, make_operator, photograph
from tests.cast import make_person
from tests.rows import make_adapter
from tests.web import web_process
from training.models import Adapter

pytestmark = pytest.mark.django_db(transaction=True)


def press(page: Page, adapter: Adapter, button: str) -> None:
    """Choose a row and a button, and say yes."""
    page.locator(f"input.action-select[value='{adapter.pk}']").check()
    page.locator("select[name=action]").select_option(label=button)
    page.get_by_role("button", name="Run").click()
    expect(page.locator("li", has_text=str(adapter.pk))).to_be_visible()
    page.get_by_role("button", name="Yes, I").click()
    page.wait_for_url("**/adapter/")


def test_an_operator_promotes_an_adapter(tmp_path: Path, settings: Any) -> None:
    make_operator(settings)
    alice = make_person("Alice")
    make_adapter(alice, digest="a" * 64, stage="PRODUCTION", test_loss=1.0)
    worse = make_adapter(
        alice, digest="b" * 64, test_loss=1.5, production_digest="a" * 64, production_test_loss=1.25, card="# The card"
    )
    make_adapter(alice, digest="c" * 64, stage="ARCHIVED")
    with web_process(tmp_path) as site, browsing(SLOW_PAGE_MS, width=1600) as page:
        visit = Visit(page, site)
        page.goto(site + reverse("admin:training_adapter_changelist"))
        log_in(page)

        rows = page.locator("#result_list tbody tr:visible")
        expect(rows).to_have_count(3)
        for row, stage in enumerate(["Archived", "Candidate", "Production"]):
            expect(rows.nth(row).locator("td.field-shown_stage")).to_have_text(stage)
        press(page, worse, "Promote")
        expect(page.locator("body")).to_contain_text("test loss 1.5 against 1.25 on the same rows")
        expect(rows.nth(1).locator("td.field-shown_stage")).to_have_text("Candidate")
        press(page, worse, "Promote whatever was measured")
        expect(page.locator("body")).to_contain_text("First:2: in production.")
        expect(rows.nth(1).locator("td.field-shown_stage")).to_have_text("Production")
        expect(rows.nth(2).locator("td.field-shown_stage")).to_have_text("Candidate")
        photograph(page)

        page.goto(site + reverse("admin:training_adapter_changelist", query={"stage__exact": "PRODUCTION"}))
        expect(rows).to_have_count(1)
        rows.first.locator("a").first.click()
        expect(page.locator("body")).to_contain_text("Base model: platform/python-small, revision 1")
        expect(page.locator("pre", has_text="# The card")).to_be_visible()
    assert visit == []
    with operator():
        assert Adapter.objects.get(stage="PRODUCTION") == worse
