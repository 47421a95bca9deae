from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0006_findings"),
    ]

    operations = [
        migrations.AddField(
            model_name="datasetversion",
            name="bias",
            field=models.JSONField(
                help_text="Of whom its rows speak, and how; null where that was not counted.", null=True
            ),
        ),
    ]
