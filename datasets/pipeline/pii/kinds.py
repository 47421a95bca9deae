"""What can be found: the kinds of secrets and of personal data."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The codes are stable: counts and placeholders carry them. Of two kinds for one span the earlier one wins."""

    __hash__ = str.__hash__  # the same as an enum's own, which is a function of Python's

    # secrets
    PRIVATE_KEY = "PRIVATE_KEY"
    AWS_ACCESS_KEY = "AWS_ACCESS_KEY"
    AWS_SECRET_KEY = "AWS_SECRET_KEY"  # noqa: S105
    GITHUB_TOKEN = "GITHUB_TOKEN"  # noqa: S105
    GITLAB_TOKEN = "GITLAB_TOKEN"  # noqa: S105
    SLACK_TOKEN = "SLACK_TOKEN"  # noqa: S105
    STRIPE_KEY = "STRIPE_KEY"
    GOOGLE_KEY = "GOOGLE_KEY"
    ANTHROPIC_KEY = "ANTHROPIC_KEY"
    OPENAI_KEY = "OPENAI_KEY"
    HUGGING_FACE_TOKEN = "HUGGING_FACE_TOKEN"  # noqa: S105
    NPM_TOKEN = "NPM_TOKEN"  # noqa: S105
    PYPI_TOKEN = "PYPI_TOKEN"  # noqa: S105
    TWILIO_KEY = "TWILIO_KEY"
    SENDGRID_KEY = "SENDGRID_KEY"
    AZURE_KEY = "AZURE_KEY"
    JWT = "JWT"
    URL_PASSWORD = "URL_PASSWORD"  # noqa: S105
    AUTHORIZATION = "AUTHORIZATION"
    PASSWORD = "PASSWORD"  # noqa: S105
    API_KEY = "API_KEY"
    # personal data
    IBAN = "IBAN"
    CODICE_FISCALE = "CODICE_FISCALE"
    INSEE = "INSEE"
    NIE = "NIE"
    DNI = "DNI"
    NINO = "NINO"
    CPF = "CPF"
    STEUER_ID = "STEUER_ID"
    AADHAAR = "AADHAAR"
    BSN = "BSN"
    SSN = "SSN"
    PAYMENT_CARD = "PAYMENT_CARD"
    EMAIL = "EMAIL"
    IPV4 = "IPV4"
    IPV6 = "IPV6"
    PHONE = "PHONE"
    PERSON_NAME = "PERSON_NAME"


KINDS = tuple(Kind)
CODES = {kind: code for code, kind in enumerate(KINDS)}  # how arrays name a kind
SECRETS = frozenset(KINDS[: CODES[Kind.IBAN]])
PERSONAL = frozenset(KINDS) - SECRETS
