"""The official `openai` package, as it comes, and somebody who asks with it."""

from __future__ import annotations

from typing import Any

import openai
from openai import OpenAI

from accounts.actions.keys import create_key
from accounts.models import Role
from common.tenancy import tenant
from tests.cast import Person


def client_of(person: Person | str, url: str, **options: Any) -> OpenAI:
    """With no patience, so that a test sees the first answer."""
    key = person if isinstance(person, str) else person.token
    return OpenAI(
        base_url=f"{url}/v1",
        api_key=key,
        **{"max_retries": 0, "timeout": 30, "http_client": openai.DefaultHttpxClient(trust_env=False), **options},
    )


def key_of(person: Person, role: Role = Role.MEMBER) -> str:
    with tenant(person.principal):
        issued = create_key(
            actor=person.principal, organization=person.organization, name="CI", role=role, expires_at=None
        )
    return issued.secret
