"""Enter the runs and adapters that there are into the ledger of usage."""

from django.db import migrations

UNDER_WAY = """
INSERT INTO accounts_usageentry (organization_id, kind, key, amount, at)
SELECT organization_id, 'RUNS', 'run:' || id, 1, created_at
FROM training_trainingrun WHERE status IN ('QUEUED', 'RUNNING')
"""
ENDED = """
INSERT INTO accounts_usageentry (organization_id, kind, key, amount, at)
SELECT organization_id, 'TRAINING_SECONDS', 'run:' || id, round(extract(epoch FROM finished_at - started_at)), finished_at
FROM training_trainingrun WHERE finished_at > started_at
"""
ADAPTERS = """
INSERT INTO accounts_usageentry (organization_id, kind, key, amount, at)
SELECT organization_id, 'STORAGE_BYTES', 'adapter:' || id, size_bytes, created_at FROM training_adapter
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0003_offsets_and_server_time"), ("accounts", "0005_quotas")]
    operations = [migrations.RunSQL([UNDER_WAY, ENDED, ADAPTERS], migrations.RunSQL.noop)]
