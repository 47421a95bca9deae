"""Tokens that are sent by mail: no tenant's scope reads or writes one. And sessions are found by the live tokens of a family."""

import uuid

from django.db import migrations, models

OPERATORS_ONLY = "REVOKE ALL ON accounts_mailedtoken FROM platform_app"


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_keys_invitations_audit")]
    operations = [
        migrations.CreateModel(
            name="MailedToken",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "purpose",
                    models.CharField(
                        choices=[("VERIFY_EMAIL", "Verify Email"), ("RESET_PASSWORD", "Reset Password")], max_length=20
                    ),
                ),
                ("address", models.EmailField(max_length=254)),
                ("token_sha256", models.CharField(max_length=64, unique=True)),
                ("expires_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("address", "purpose"), name="mailedtoken_once")],
            },
        ),
        # dropping the table drops its grants
        migrations.RunSQL(OPERATORS_ONLY, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="refreshtoken",
            name="family",
            field=models.UUIDField(default=uuid.uuid4),
        ),
        migrations.AddIndex(
            model_name="refreshtoken",
            index=models.Index(
                condition=models.Q(("revoked_at", None)), fields=["family"], name="refreshtoken_unrevoked"
            ),
        ),
    ]
