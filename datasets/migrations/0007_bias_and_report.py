import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from common.row_security import ProtectTable, TenantForeignKey


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_closing"),
        ("datasets", "0006_findings"),
        ("common", "0001_roles"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="datasetversion",
            name="bias",
            field=models.JSONField(
                help_text="Of whom its rows speak, and how; null where that was not counted.", null=True
            ),
        ),
        migrations.AddField(
            model_name="datasetversion",
            name="report_key",
            field=models.CharField(
                blank=True, default="", help_text="Where its HTML report lies, once there is one.", max_length=300
            ),
        ),
        migrations.CreateModel(
            name="VersionReport",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("QUEUED", "Queued"),
                            ("RUNNING", "Running"),
                            ("SUCCEEDED", "Succeeded"),
                            ("FAILED", "Failed"),
                            ("CANCELLED", "Cancelled"),
                        ],
                        default="QUEUED",
                        max_length=9,
                    ),
                ),
                (
                    "due_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="Not claimed before: a requeued job waits a little.",
                    ),
                ),
                ("attempt", models.PositiveIntegerField(default=0, help_text="How often a worker has begun it.")),
                (
                    "unproductive_attempts",
                    models.PositiveIntegerField(default=0, help_text="Attempts in a row that left nothing."),
                ),
                (
                    "fence",
                    models.BigIntegerField(
                        default=0, help_text="Counts claims; a write with an older one changes nothing."
                    ),
                ),
                ("lease_owner", models.CharField(blank=True, default="", max_length=200)),
                ("lease_until", models.DateTimeField(null=True)),
                (
                    "process",
                    models.JSONField(help_text="Host, process group, and start time of the child at work.", null=True),
                ),
                ("cancel_requested_at", models.DateTimeField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("error_code", models.CharField(max_length=60, null=True)),
                ("error_message", models.TextField(null=True)),
                ("last_sequence", models.BigIntegerField(default=0)),
                (
                    "events_offset",
                    models.BigIntegerField(
                        default=0, help_text="Bytes of the present attempt's events.jsonl that are in the log."
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.organization"
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="reports",
                        to="datasets.datasetversion",
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="VersionReportEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("sequence", models.BigIntegerField()),
                ("at", models.DateTimeField()),
                ("kind", models.CharField(max_length=40)),
                ("data", models.JSONField()),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="event_log",
                        to="datasets.versionreport",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.organization"
                    ),
                ),
            ],
            options={
                "ordering": ["sequence"],
                "abstract": False,
            },
        ),
        migrations.AddIndex(
            model_name="versionreport",
            index=models.Index(
                condition=models.Q(("status", "QUEUED")), fields=["organization", "due_at"], name="versionreport_queued"
            ),
        ),
        migrations.AddIndex(
            model_name="versionreport",
            index=models.Index(
                condition=models.Q(("status", "RUNNING")),
                fields=["organization", "lease_until"],
                name="versionreport_running",
            ),
        ),
        migrations.AddIndex(
            model_name="versionreport",
            index=models.Index(fields=["organization", "-created_at", "-id"], name="versionreport_newest"),
        ),
        migrations.AddConstraint(
            model_name="versionreport",
            constraint=models.UniqueConstraint(fields=("organization", "version"), name="one_report_of_each_version"),
        ),
        migrations.AddConstraint(
            model_name="versionreportevent",
            constraint=models.UniqueConstraint(fields=("job", "sequence"), name="versionreportevent_sequence"),
        ),
        ProtectTable("datasets_versionreport"),
        ProtectTable("datasets_versionreportevent"),
        TenantForeignKey("datasets_versionreport", "version_id", "datasets_datasetversion"),
        TenantForeignKey("datasets_versionreportevent", "job_id", "datasets_versionreport"),
    ]
