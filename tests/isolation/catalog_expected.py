"""What the catalog has to be, and each exception with its reason. A new table is right by itself, or is named here."""

from __future__ import annotations

from common.tenancy import APP_ROLE, OPERATOR_ROLE
from tests.isolation.catalog import Policy, Table

NOBODYS = {
    "accounts_user": "a person belongs to several organizations, or to none; visible_to says who sees whom",
    "accounts_user_groups": "of operators, for the admin",
    "accounts_user_user_permissions": "of operators, for the admin",
    "accounts_refreshtoken": "sessions are people's; looked up before anybody has a tenant",
    "accounts_mailedtoken": "of an address, which needs no account; platform_app cannot even read it",
    "auth_group": "of operators, for the admin",
    "auth_group_permissions": "of operators, for the admin",
    "auth_permission": "Django's names of what operators may do",
    "django_admin_log": "what operators did in the admin, which is one operator scope",
    "django_content_type": "names of models",
    "django_migrations": "names of migrations",
    "django_q_ormq": "unused: rings go through Redis",
    "django_q_schedule": "unused: schedules are the keeper's",
    "django_q_task": "unused: nothing is recorded of rings",
    "django_session": "of the admin; the API has none",
    "training_device": "of hosts, which train for everybody; what it says is in no answer but as figures of an estimate",
}
"""Tables without an organization, and why they have none."""

NOT_OF_THE_ORGANIZATION = {
    "accounts_apikey_secret_sha256_key": "of 256 random bits: nobody meets another's",
    "accounts_invitation_token_sha256_key": "of 256 random bits: nobody meets another's",
    "accounts_organization_slug_key": "nobody chooses a slug: it ends in random digits",
    "datasetversionevent_sequence": "the job is one organization's, which its composite foreign key sees to",
    "versionreportevent_sequence": "the job is one organization's, which its composite foreign key sees to",
    "trainingrunevent_sequence": "the job is one organization's, which its composite foreign key sees to",
    "tokencountevent_sequence": "the job is one organization's, which its composite foreign key sees to",
    "training_adapter_training_run_id_key": "the run is one organization's, which its composite foreign key sees to",
    "outbox_once": "an event names the row that it tells of, by an id that nobody chooses",
}
"""Unique indexes that span organizations, and why they tell of nobody's rows."""

ALL = {"SELECT", "INSERT", "UPDATE", "DELETE"}
FEWER = {
    "accounts_mailedtoken": set(),  # whoever could read one could have it sent anew, and use it
    "accounts_refreshtoken": set(),  # whoever could write one could sign in as anybody
    "accounts_quota": {"SELECT"},  # operators say what an organization may use
    "accounts_auditentry": {"SELECT", "INSERT"},  # append-only
    "accounts_audithead": {"SELECT", "INSERT", "UPDATE"},
    "common_outboxmessage": {"INSERT"},  # mails hold tokens
}
"""What platform_app may do with a table, where that is not all."""

_OURS = "({column} = ANY ((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]))"


def expected_policies(table: Table) -> set[Policy]:
    """As ProtectTable makes them: tenants see theirs, operators and the owner all."""
    ours = _OURS.format(column=table.tenant_column)
    tenant = Policy("tenant", (APP_ROLE,), "*", True, ours, ours)
    if table.name == "common_outboxmessage":  # what is mailed may concern no organization; nobody reads it back
        tenant = Policy("tenant", (APP_ROLE,), "a", True, "", f"((organization_id IS NULL) OR {ours})")
    return {
        tenant,
        Policy("operator", (OPERATOR_ROLE,), "*", True, "true", "true"),
        Policy("owner", (table.owner,), "*", True, "true", "true"),
    }
