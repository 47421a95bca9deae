"""A limit of an organization, typed into the admin; the web process has seen no other test's content types."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser import Visit, log_in
from tests.platform_site.test_browser import adapter, page, site, visit
from training.models import Adapter

__all__ = ["adapter", "page", "site", "visit"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_limit_that_is_mistyped_is_refused_and_not_taken_for_none(
    page: Page, site: str, visit: Visit, adapter: Adapter
) -> None:
    page.goto(f"{site}/admin/")
    log_in(page)
    address = site + reverse("admin:accounts_organization_change", args=[adapter.organization_id])
    field = page.get_by_label("Requests per minute").first  # the other one is a template

    def save(typed: str) -> None:
        page.goto(address)
        field.press("Control+a")
        page.keyboard.type(typed)
        page.get_by_role("button", name="Save", exact=True).click()

    save("500")
    expect(page.get_by_text("was changed successfully")).to_be_visible()
    for typed in ("1e", "5-0", "5,000"):
        save(typed)
        expect(page.get_by_text("Enter a whole number.")).to_be_visible()
        expect(field).to_have_value(typed)
    page.goto(address)
    expect(field).to_have_value("500")
    assert visit == []
