"""Enter what is stored already into the ledger of usage."""

from django.db import migrations

UPLOADS = """
INSERT INTO accounts_usageentry (organization_id, kind, key, amount, at, lapses_at)
SELECT organization_id, 'STORAGE_BYTES', 'upload:' || id, size_bytes, created_at,
    CASE WHEN completed_at IS NULL THEN expires_at END
FROM datasets_upload WHERE completed_at IS NOT NULL OR expires_at > now()
"""
VERSIONS = """
INSERT INTO accounts_usageentry (organization_id, kind, key, amount, at)
SELECT organization_id, 'STORAGE_BYTES', 'version:' || id, size_bytes, coalesce(finished_at, created_at)
FROM datasets_datasetversion WHERE status = 'SUCCEEDED' AND size_bytes IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("datasets", "0003_offsets_and_server_time"), ("accounts", "0005_quotas")]
    operations = [migrations.RunSQL([UPLOADS, VERSIONS], migrations.RunSQL.noop)]
