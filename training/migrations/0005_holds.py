"""Runs that have not ended hold the versions that they use."""

from django.db import migrations

UNDER_WAY = """
INSERT INTO datasets_hold (organization_id, version_id, holder, label)
SELECT organization_id, dataset_version_id, 'run:' || id, 'training run ' || name
FROM training_trainingrun WHERE status IN ('QUEUED', 'RUNNING')
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0004_usage"), ("datasets", "0005_deletion")]
    operations = [migrations.RunSQL([UNDER_WAY], migrations.RunSQL.noop)]
