import django.db.models.deletion
from django.db import migrations, models

from common.row_security import ProtectTable, TenantForeignKey


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_closing"),
        ("datasets", "0004_usage"),
        ("common", "0001_roles"),
    ]

    operations = [
        migrations.CreateModel(
            name="Hold",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "holder",
                    models.CharField(help_text="Whoever holds it, by kind and id; once for each.", max_length=100),
                ),
                ("label", models.CharField(help_text="What people call it.", max_length=200)),
            ],
        ),
        migrations.AddField(
            model_name="dataset",
            name="bytes_removed_at",
            field=models.DateTimeField(help_text="When the keeper had removed its files.", null=True),
        ),
        migrations.AddField(
            model_name="dataset",
            name="deleted_at",
            field=models.DateTimeField(help_text="Its bytes go, its rows stay.", null=True),
        ),
        migrations.AddIndex(
            model_name="dataset",
            index=models.Index(
                condition=models.Q(("bytes_removed_at", None), ("deleted_at__isnull", False)),
                fields=["deleted_at"],
                name="dataset_with_bytes_to_remove",
            ),
        ),
        migrations.AddField(
            model_name="hold",
            name="organization",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.organization"
            ),
        ),
        migrations.AddField(
            model_name="hold",
            name="version",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="holds",
                to="datasets.datasetversion",
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.UniqueConstraint(fields=("organization", "holder"), name="one_hold_of_each_holder"),
        ),
        ProtectTable("datasets_hold"),
        TenantForeignKey("datasets_hold", "version_id", "datasets_datasetversion"),
    ]
