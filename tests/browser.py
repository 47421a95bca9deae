"""A real browser, which complains of what a person would not see; and an operator who signs in to the admin."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from accounts.models import User
from tests.cast import PASSWORD

# Without these flags it goes on looking for its maker's servers, and headless alone does not mean no display.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000
SLOW_PAGE_MS = 6 * PATIENCE_MS
"""For pages that read files, or ask other processes."""
OPERATOR = "ops@example.com"


class Visit(list[str]):
    """Complaints: what the pages asked of others, what was not there, and what their scripts said."""

    def __init__(self, page: Page, site: str) -> None:
        super().__init__()
        host = urlsplit(site).netloc
        page.on("request", lambda request: self.unless(urlsplit(request.url).netloc in {host, ""}, request.url))
        page.on("websocket", lambda socket: self.unless(urlsplit(socket.url).netloc == host, socket.url))
        page.on("response", lambda answer: self.unless(answer.status < 400, f"{answer.status} {answer.url}"))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda said: self.unless(said.type not in {"error", "warning"}, said.text))

    def unless(self, fine: bool, complaint: str) -> None:
        if not fine:
            self.append(complaint)


def chromium() -> str:
    """Where it is. Without one the test is skipped, or fails where REQUIRE_BROWSER says so."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing = "needs a browser: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("REQUIRE_BROWSER") else pytest.skip(missing)
    return found


@contextmanager
def browsing(patience_ms: int = PATIENCE_MS, width: int = 1280) -> Iterator[Page]:
    """A page that waits for so long for what is to be there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(patience_ms)
        expect.set_options(timeout=patience_ms)
        try:
            yield page
        finally:
            expect.set_options(timeout=PATIENCE_MS)
            browser.close()


def photograph(page: Page) -> None:
    """Into the file that SCREENSHOT names, if it does: a test that draws a page lets a person look at it."""
    if picture := os.environ.get("SCREENSHOT"):
        page.screenshot(path=picture, full_page=True)


def make_operator(settings: Any) -> None:
    """Whoever signs in by a web process, which knows no quick hasher."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.BCryptSHA256PasswordHasher"]
    User.objects.create_superuser(OPERATOR, PASSWORD)


def log_in(page: Page) -> None:
    """To the admin, at whose form the page is."""
    page.get_by_label("Email").fill(OPERATOR)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
