"""What organizations may use, which tenants read and operators write, and the ledger of what they use."""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from common.row_security import ProtectTable

READ_ONLY = "REVOKE INSERT, UPDATE, DELETE ON accounts_quota FROM platform_app"


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_identity"),
    ]

    operations = [
        migrations.CreateModel(
            name="Quota",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="quota",
                        serialize=False,
                        to="accounts.organization",
                    ),
                ),
                (
                    "storage_bytes",
                    models.PositiveBigIntegerField(
                        blank=True, null=True, validators=[django.core.validators.MaxValueValidator(9007199254740992)]
                    ),
                ),
                (
                    "concurrent_runs",
                    models.PositiveIntegerField(blank=True, help_text="Queued and running together.", null=True),
                ),
                (
                    "training_minutes_per_month",
                    models.PositiveIntegerField(blank=True, help_text="Calendar months, UTC.", null=True),
                ),
                (
                    "tokens_per_day",
                    models.PositiveBigIntegerField(
                        blank=True,
                        help_text="Prompts and answers; days of UTC.",
                        null=True,
                        validators=[django.core.validators.MaxValueValidator(9007199254740992)],
                    ),
                ),
                (
                    "requests_per_minute",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Of each user, and of all API keys together.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="UsageEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("STORAGE_BYTES", "Storage Bytes"),
                            ("RUNS", "Runs"),
                            ("TRAINING_SECONDS", "Training Seconds"),
                            ("TOKENS", "Tokens"),
                        ],
                        max_length=16,
                    ),
                ),
                ("key", models.CharField(help_text="What uses it, such as upload:<id>.", max_length=60)),
                ("amount", models.PositiveBigIntegerField(help_text="Bytes, runs, seconds, or tokens.")),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "lapses_at",
                    models.DateTimeField(help_text="Until when a reservation counts that nobody settles.", null=True),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.organization"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "usage entries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        fields=["organization", "kind", "at"], include=("amount", "lapses_at"), name="usageentry_sums"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "kind", "key"), name="usageentry_once")
                ],
            },
        ),
        ProtectTable("accounts_quota"),
        ProtectTable("accounts_usageentry"),
        # dropping the table drops its grants
        migrations.RunSQL(READ_ONLY, migrations.RunSQL.noop),
    ]
