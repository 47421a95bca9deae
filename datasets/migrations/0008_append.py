import django.db.models.deletion
from django.db import migrations, models

from common.row_security import TenantForeignKey


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0007_bias_and_report"),
    ]

    operations = [
        migrations.AddField(
            model_name="datasetversion",
            name="parent",
            field=models.ForeignKey(
                db_constraint=False,
                help_text="The version that its rows were added to.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="datasets.datasetversion",
            ),
        ),
        migrations.AddField(
            model_name="datasetversion",
            name="asked_recipe",
            field=models.JSONField(
                help_text="The recipe before the upload had a say in it; null: of an earlier release.", null=True
            ),
        ),
        migrations.AddField(
            model_name="datasetversion",
            name="pipeline_version",
            field=models.PositiveSmallIntegerField(help_text="Whose rules made it, once it is made.", null=True),
        ),
        TenantForeignKey("datasets_datasetversion", "parent_id", "datasets_datasetversion"),
    ]
