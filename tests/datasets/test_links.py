"""A link to a file in storage: for ten minutes, for that file, and as what it was made for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core import signing
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from google.oauth2.service_account import Credentials
from storages.backends.gcloud import GoogleCloudStorage

from common import blobs
from datasets import links
from tests.web import serving

BYTES = bytes(range(256)) * 10_000
KEY = "t/one/files/rows.parquet"
PARQUET = "application/octet-stream"


@pytest.fixture
def stored() -> None:
    default_storage.save(KEY, ContentFile(BYTES))


def fetch(site: str, token: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, f"{site}/files/{token}", trust_env=False)


def test_the_file_comes_whole_with_what_a_browser_shall_take_it_for(stored: None) -> None:
    with serving() as site:
        answer = fetch(site, links.sign(KEY, 'r\u00f6ws "1".parquet', PARQUET))
        head = fetch(site, links.sign(KEY, "page.html", "text/html"), "HEAD")
    assert (answer.status_code, answer.content) == (200, BYTES)
    assert answer.headers["content-type"] == PARQUET
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''r%C3%B6ws%20%221%22.parquet"
    assert answer.headers["cache-control"] == "private, no-store"
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BYTES)))
    assert head.headers["content-type"] == "text/html; charset=utf-8"
    assert head.headers["content-disposition"] == 'inline; filename="page.html"'
    policy = head.headers.get_list("content-security-policy")
    assert policy == [links.POLICY] and policy[0].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy[0] and "default-src 'none'" in policy[0]
    assert head.headers["x-content-type-options"] == "nosniff"


def test_a_link_ends_after_ten_minutes(stored: None, monkeypatch: Any) -> None:
    now = signing.time.time()
    token = links.sign(KEY, "rows.parquet", PARQUET)
    assert links.named_by(token) == links.Linked(KEY, "rows.parquet", PARQUET)
    monkeypatch.setattr(signing.time, "time", lambda: now + 601 + 1)
    assert links.named_by(token) is None


def test_only_what_is_there_is_sent_and_only_read(stored: None) -> None:
    with serving() as site:
        gone = fetch(site, links.sign("t/one/files/gone", "gone", PARQUET))
        posted = fetch(site, links.sign(KEY, "rows", PARQUET), "POST")
        forged = fetch(site, signing.dumps([KEY, "rows", PARQUET], salt="x"))
    assert (gone.status_code, gone.json()["code"]) == (404, "NOT_FOUND") == (forged.status_code, forged.json()["code"])
    assert gone.content == forged.content
    assert (posted.status_code, posted.json()["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_storage_in_a_cloud_answers_its_links_itself(monkeypatch: Any) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "client_email": "x@y.iam.gserviceaccount.com",
        "token_uri": "https://nowhere.invalid",
        "private_key": pem,
    }
    credentials = Credentials.from_service_account_info(account)
    bucket = GoogleCloudStorage(bucket_name="bucket", project_id="p", credentials=credentials)
    monkeypatch.setattr(blobs, "default_storage", bucket)
    url = urlsplit(links.url_of(KEY, "report.html", "text/html"))
    asked = {name: value for name, (value,) in parse_qs(url.query).items()}
    assert (url.netloc, url.path) == ("storage.googleapis.com", f"/bucket/{KEY}")
    assert timedelta(seconds=int(asked["X-Goog-Expires"])) == links.LIFETIME
    assert asked["response-content-type"] == "text/html"
    assert asked["response-content-disposition"] == 'inline; filename="report.html"'
