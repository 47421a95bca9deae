"""The admin's page of the inference server: what it holds and does, and whose tokens it takes."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db.models import F
from django.test import Client
from django.urls import reverse

from accounts.models import UsageEntry, User
from accounts.token_usage import most_tokens
from accounts.usage import reserve
from accounts.usage_kinds import UsageKind
from common.tenancy import in_scope, operator
from inference import client as asked
from inference.server.app import InferenceApp
from tests.accounts.ledger import allow
from tests.cast import PASSWORD, Person
from tests.inference.asking import Files, hers
from tests.inference.test_predict_api import predict

ADDRESS = "/admin/inference/"


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root@example.com", PASSWORD))
    return client


def shown(client: Client) -> str:
    answer = client.get(ADDRESS)
    assert answer.status_code == 200
    return answer.content.decode()


def cells(page: str, table: str) -> list[list[str]]:
    body = page[page.index(f'<table id="{table}"') :].split("</table>")[0].split("<tbody>")[1]
    rows = body.split("<tr")[1:]
    return [
        [
            " ".join(html.unescape(re.sub("<[^>]*>", " ", cell)).split())
            for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
        ]
        for row in rows
    ]


def used_before(person: Person, days: int, tokens: int) -> None:
    with operator():
        made = UsageEntry.objects.create(
            organization=person.organization, kind=UsageKind.TOKENS, key=f"day:{days}", amount=tokens
        )
        UsageEntry.objects.filter(pk=made.pk).update(at=F("at") - timedelta(days=days))


@pytest.mark.usefixtures("served")
def test_an_operator_sees_what_is_resident_and_who_pays(
    shipped: tuple[InferenceApp, str], admin: Client, alice: Person, charlie: Person, files: Files
) -> None:
    adapter = hers(alice, files)
    for _ in range(2):
        answer = predict(alice, adapter)
    predict(charlie)
    allow(charlie, tokens_per_day=777)
    used_before(alice, 3, 100)
    page = shown(admin)
    assert "platform/python-small on cpu: ready" in page
    assert "0 of 8 places at work, 0 waiting (at most 256)" in page
    assert cells(page, "resident")[0] == ["First:1", "Alice's", files.digest[:12]]
    assert reverse("admin:training_adapter_change", args=[adapter.pk]) in page
    assert cells(page, "lines") == [["Nobody asks."]]
    tally = shipped[0].tally
    assert [row[:2] for row in cells(page, "found")] == [
        ["in a slot of the model", str(tally.found["slot"])],  # type: ignore[index]
        ["in memory", str(tally.found["memory"])],  # type: ignore[index]
        ["in storage", str(tally.found["storage"])],  # type: ignore[index]
    ]
    assert tally.found["slot"] >= 1  # type: ignore[index]
    assert ["LENGTH", f"{tally.ended['LENGTH']:,}"] in cells(page, "ended") or tally.ended["LENGTH"] == 0
    each = answer["promptTokens"] + answer["completionTokens"]
    rows = {row[0]: row[1:] for row in cells(page, "usage")}
    assert rows["Alice's"] == [f"{2 * each:,}", "0", "5,000,000", f"{2 * each + 100:,}", f"{2 * each + 100:,}"]
    assert rows["Charlie's"][2] == "777"


def test_tokens_are_added_up_by_day(alice: Person, charlie: Person) -> None:
    for days, tokens in ((0, 5), (6, 10), (7, 20), (29, 40), (30, 80)):
        used_before(alice, days, tokens)
    used_before(charlie, 1, 7)
    with operator():
        reserve(charlie.organization.pk, UsageKind.TOKENS, 3, key="prediction:x")
        UsageEntry.objects.filter(key="prediction:x").update(lapses_at=F("at") + timedelta(hours=1))
        reserve(charlie.organization.pk, UsageKind.TOKENS, 1000, key="prediction:y")
        UsageEntry.objects.filter(key="prediction:y").update(lapses_at=F("at") - timedelta(hours=1))
        reserve(charlie.organization.pk, UsageKind.STORAGE_BYTES, 9, key="upload:x")
        found = most_tokens(10)
        (first,) = most_tokens(1)
    facts = [(each.organization.name, each.today, each.reserved, each.seven_days, each.thirty_days) for each in found]
    assert facts == [("Alice's", 5, 0, 15, 75), ("Charlie's", 3, 3, 10, 10)]
    assert (first.organization, first.limit) == (alice.organization, 5_000_000)


def test_a_server_that_is_away_is_told_in_words_and_usage_is_there(admin: Client, alice: Person, settings: Any) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    used_before(alice, 0, 12)
    page = shown(admin)
    assert "The inference server is away; try again in a moment. What it holds is not known" in page
    assert 'id="resident"' not in page
    assert cells(page, "usage") == [["Alice's", "12", "0", "5,000,000", "12", "12"]]


@pytest.mark.usefixtures("served")
def test_a_server_with_another_secret_is_told_in_words(admin: Client, settings: Any) -> None:
    settings.INFERENCE_SECRET = "another installation's secret, as long"
    page = shown(admin)
    assert "It refuses our tickets" in page
    assert cells(page, "usage") == [["Nobody has asked for anything within thirty days."]]


def test_it_is_for_those_who_may_see_usage_and_adapters(client: Client, db: None, settings: Any) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    assert client.get(ADDRESS).headers["Location"] == f"/admin/login/?next={ADDRESS}"
    staff = User.objects.create_user("staff@example.com", PASSWORD, is_staff=True)
    client.force_login(staff)
    assert client.get(ADDRESS).status_code == 403
    assert ADDRESS not in client.get("/admin/").content.decode()
    staff.user_permissions.set(Permission.objects.filter(codename__in=["view_usageentry", "view_adapter"]))
    assert client.get(ADDRESS).status_code == 200
    assert f'href="{ADDRESS}"' in client.get("/admin/").content.decode()


def test_no_transaction_is_open_while_the_server_is_asked(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def status(url: str, ticket: str) -> dict[str, Any]:
        seen.append(in_scope())
        raise asked.InferenceError("INFERENCE_UNAVAILABLE", "Away.")

    monkeypatch.setattr(asked, "status", status)
    shown(admin)
    assert seen == [False]
