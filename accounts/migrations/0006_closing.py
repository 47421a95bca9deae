"""What is about to be deleted; when a session began; and refresh tokens, which no tenant's scope reads or writes."""

import django.db.models.functions.datetime
from django.db import migrations, models

CLOSES_AT = {"editable": False, "help_text": "When it is deleted, unless it is restored.", "null": True}
OPERATORS_ONLY = "REVOKE ALL ON accounts_refreshtoken FROM platform_app"
EVERYBODYS = "GRANT SELECT, INSERT, UPDATE, DELETE ON accounts_refreshtoken TO platform_app"
AS_THEY_BEGAN = """
UPDATE accounts_refreshtoken token SET begun_at = first.created_at
FROM (SELECT family, min(created_at) AS created_at FROM accounts_refreshtoken GROUP BY family) first
WHERE first.family = token.family
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_quotas")]
    operations = [
        migrations.AddField(model_name="organization", name="closes_at", field=models.DateTimeField(**CLOSES_AT)),
        migrations.AddField(model_name="user", name="closes_at", field=models.DateTimeField(**CLOSES_AT)),
        migrations.AddField(
            model_name="refreshtoken",
            name="begun_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                help_text="When its session was: the first of its family.",
            ),
        ),
        migrations.RunSQL(AS_THEY_BEGAN, migrations.RunSQL.noop),
        migrations.RunSQL(OPERATORS_ONLY, EVERYBODYS),
    ]
