"""EMAIL_URL and MAIL_FROM: what is understood, and what is refused by name."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from platform_site.environment import MailServer, mail_server, mailbox

UNDERSTOOD = {
    "console://": MailServer(),
    "smtp://mail.example.com": MailServer("mail.example.com", 25),
    "smtp://127.0.0.1:1025": MailServer("127.0.0.1", 1025),
    "smtp://mail.example.com?tls=true": MailServer("mail.example.com", 587, starttls=True),
    "smtp://ada%40example.com:p%2Fw%3F@mail.example.com:2525?tls=true": MailServer(
        "mail.example.com", 2525, "ada@example.com", "p/w?", starttls=True
    ),
    "smtps://ada:secret@mail.example.com": MailServer("mail.example.com", 465, "ada", "secret", tls=True),
    "smtp://[::1]:25": MailServer("::1", 25),
}
REFUSED = [
    *(
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtp://mail.example.com:0",
        "smtp://mail.example.com:x",
    ),
    *("smtp://mail.example.com/folder", "smtp://mail.example.com?tls=maybe", "smtp://mail.example.com?ssl=true"),
    *("smtp://ada@mail.example.com", "smtp://:secret@mail.example.com", "smtp://mail.example.com?tls"),
]


@pytest.mark.parametrize("value", UNDERSTOOD)
def test_a_mail_server_is_named_by_a_url(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EMAIL_URL", value)
    assert mail_server("EMAIL_URL") == UNDERSTOOD[value]


@pytest.mark.parametrize("value", REFUSED)
def test_what_is_no_mail_server_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EMAIL_URL", value)
    with pytest.raises(ImproperlyConfigured, match=r"^EMAIL_URL is .*; it should be smtp://user:password@host"):
        mail_server("EMAIL_URL")


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_URL", "smtp://ada:canary@mail.example.com:x")
    with pytest.raises(ImproperlyConfigured) as refusal:
        mail_server("EMAIL_URL")
    monkeypatch.setenv("EMAIL_URL", "smtp://ada:canary@mail.example.com")
    assert "canary" not in str(refusal.value) + repr(mail_server("EMAIL_URL"))


def test_without_a_server_mail_goes_to_the_log() -> None:
    assert MailServer().backend == "django.core.mail.backends.console.EmailBackend"
    assert MailServer("127.0.0.1", 25).backend == "common.smtp.EmailBackend"


@pytest.mark.parametrize("value", ["ada@example.com", "Ada <ada@example.com>", "Zoë's <zoe@example.com>"])
def test_a_sender_is_an_address_with_or_without_a_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MAIL_FROM", value)
    assert mailbox("MAIL_FROM", "") == value


@pytest.mark.parametrize(
    "value", ["ada", "Ada <ada>", "a@b@example.com", "Ada\nBcc: eve@example.com <ada@example.com>"]
)
def test_what_is_no_address_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MAIL_FROM", value)
    with pytest.raises(ImproperlyConfigured, match=r"^MAIL_FROM is .*; it should be Platform <platform@example.com>"):
        mailbox("MAIL_FROM", "")
