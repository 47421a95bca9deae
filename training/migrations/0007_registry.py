from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_closing"),
        ("training", "0006_checkpoints"),
    ]

    operations = [
        migrations.AddField(
            model_name="adapter",
            name="production_digest",
            field=models.CharField(
                default="",
                help_text="Of the adapter that its run measured beside it: the one in production when that began.",
                max_length=64,
            ),
        ),
        migrations.AddField(
            model_name="adapter",
            name="production_test_loss",
            field=models.FloatField(help_text="That adapter's loss on the same test rows.", null=True),
        ),
        migrations.AddField(
            model_name="adapter",
            name="stage",
            field=models.CharField(
                choices=[("CANDIDATE", "Candidate"), ("PRODUCTION", "Production"), ("ARCHIVED", "Archived")],
                default="CANDIDATE",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="adapter",
            constraint=models.UniqueConstraint(
                condition=models.Q(("stage", "PRODUCTION")),
                fields=("organization", "name"),
                name="adapter_in_production",
            ),
        ),
    ]
