from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0005_deletion"),
    ]

    operations = [
        migrations.AddField(
            model_name="datasetversion",
            name="pii_findings",
            field=models.JSONField(default=list, help_text="[{key, count}]: secrets and personal data, by kind."),
        ),
    ]
