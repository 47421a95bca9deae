from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0008_append"),
    ]

    operations = [
        migrations.AddField(
            model_name="datasetversion",
            name="length_histograms",
            field=models.JSONField(
                default=list, help_text="[{field, rows, shortest, longest, mean, bins}]: characters of its rows."
            ),
        ),
    ]
