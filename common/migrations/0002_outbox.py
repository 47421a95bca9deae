"""The outbox: platform_app puts messages of its organizations in, and of none, and sees or changes not one of them."""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

INSERT_ONLY = """
ALTER TABLE common_outboxmessage ENABLE ROW LEVEL SECURITY;
ALTER TABLE common_outboxmessage FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON common_outboxmessage FOR INSERT TO platform_app WITH CHECK (
    organization_id IS NULL
    OR organization_id = ANY (nullif(current_setting('app.organizations', true), '')::uuid[])
);
CREATE POLICY operator ON common_outboxmessage TO platform_operator USING (true) WITH CHECK (true);
CREATE POLICY owner ON common_outboxmessage TO CURRENT_USER USING (true) WITH CHECK (true);
REVOKE SELECT, UPDATE, DELETE ON common_outboxmessage FROM platform_app;
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("common", "0001_roles")]
    operations = [
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("kind", models.CharField(choices=[("MAIL", "Mail")], default="MAIL", max_length=10)),
                (
                    "event",
                    models.CharField(help_text="What it tells of, such as training-run/<id>/FAILED.", max_length=200),
                ),
                ("recipient", models.CharField(max_length=254)),
                ("subject", models.CharField(max_length=250)),
                ("body", models.TextField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "due_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), help_text="Not tried before."
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("sent_at", models.DateTimeField(null=True)),
                (
                    "failed_at",
                    models.DateTimeField(help_text="Since when it is not tried any more.", null=True),
                ),
                ("last_error", models.CharField(blank=True, default="", max_length=500)),
                (
                    "organization",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("failed_at", None), ("sent_at", None)),
                        fields=["due_at"],
                        name="outbox_pending",
                    )
                ],
                "constraints": [models.UniqueConstraint(fields=("event", "recipient"), name="outbox_once")],
            },
        ),
        # dropping the table drops its policies and grants
        migrations.RunSQL(INSERT_ONLY, migrations.RunSQL.noop),
    ]
