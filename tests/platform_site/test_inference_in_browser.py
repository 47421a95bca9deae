"""The admin's page of the inference server in a real browser: found, drawn, within the page's policy, and without a complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from inference.server.app import InferenceApp
from tests.browser import SLOW_PAGE_MS, Visit, browsing, log_in, make_operator, photograph
from tests.cast import make_person
from tests.inference.asking import hers, make_files, running, shipped_app
from tests.inference.test_predict_api import predict
from tests.web import web_process

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_operator_looks_at_the_inference_server(tmp_path: Path, settings: Any) -> None:
    make_operator(settings)
    alice = make_person("Alice")
    adapter = hers(alice, make_files(tmp_path / "adapter"), name="<b>Adds</b>")
    app: InferenceApp = shipped_app(tmp_path / "cache")
    with running(app) as url:
        settings.INFERENCE_URL = url
        answer = predict(alice, adapter)
        assert answer["__typename"] == "Prediction"
        tokens = answer["promptTokens"] + answer["completionTokens"]
        with (
            web_process(tmp_path, INFERENCE_URL=url, BASE_MODEL="platform/python-small") as site,
            browsing(SLOW_PAGE_MS) as page,
        ):
            visit = Visit(page, site)
            page.goto(f"{site}/admin/")
            log_in(page)
            page.get_by_role("link", name="Inference", exact=True).click()

            expect(page.locator("#server")).to_contain_text("platform/python-small on cpu: ready")
            expect(page.locator("#resident tbody tr")).to_have_count(1)
            expect(page.locator("#resident")).to_contain_text("<b>Adds</b>:1")
            expect(page.locator("#found tr").first).to_contain_text("in a slot of the model")
            expect(page.locator("#usage tbody tr")).to_have_count(1)
            expect(page.locator("#usage tbody td").nth(1)).to_have_text(f"{tokens:,}")
            usage, server = page.locator("#usage").bounding_box(), page.locator("#server").bounding_box()
            assert usage and server and usage["width"] > 600 and usage["y"] > server["y"] + server["height"]
            photograph(page)
            page.locator("#resident a").click()
            expect(page).to_have_url(f"{site}/admin/training/adapter/{adapter.pk}/change/")
            assert visit == []
