"""A version's page of the admin in a real browser: drawn, within the page's policy, and without a complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser import SLOW_PAGE_MS, Visit, browsing, log_in, make_operator, photograph
from tests.cast import make_person
from tests.datasets.test_version_page import stored
from tests.web import web_process

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_operator_looks_into_a_version(tmp_path: Path, settings: Any) -> None:
    make_operator(settings)
    version = stored(make_person("Alice"), tmp_path)
    with web_process(tmp_path) as site, browsing(SLOW_PAGE_MS) as page:
        visit = Visit(page, site)
        page.goto(site + reverse("admin:datasets_datasetversion_change", args=[version.pk]))
        log_in(page)

        steps = page.locator("#steps")
        expect(steps.get_by_role("row")).to_have_count(10)
        expect(steps).to_contain_text("NOT_JSON 1")
        kept, dropped = (steps.locator("tr").nth(1).locator("rect").nth(place) for place in (0, 1))
        assert kept.bounding_box()["width"] == 120 and dropped.bounding_box()["width"] == 40  # type: ignore[index]
        charts = page.locator("figure svg")
        expect(charts).to_have_count(2)
        assert charts.first.bounding_box()["height"] > 50  # type: ignore[index]
        for name in ("rejections", "places", "clusters"):
            expect(page.locator(f"#{name} pre").first).to_be_hidden()
            page.locator(f"#{name} summary").click()
            expect(page.locator(f"#{name} pre").first).to_be_visible()
        left, right = (page.locator("#clusters pre").nth(place).bounding_box() for place in (0, 1))
        assert left and right and left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
        photograph(page)

        with page.expect_download() as coming:
            page.get_by_role("link", name="csv, train").click()
        assert coming.value.suggested_filename == "Snippets-v1-train.csv"
        assert coming.value.path().read_text().count("\n") == 3
        page.get_by_role("link", name="Card", exact=True).click()
        expect(page.locator("body")).to_contain_text("# Snippets, version 1")
    assert visit == []
