from django.db import migrations

from common.row_security import ProtectTable, TenantForeignKey


class Migration(migrations.Migration):
    dependencies = [("datasets", "0001_initial"), ("common", "0001_roles")]
    operations = [
        ProtectTable("datasets_upload"),
        ProtectTable("datasets_dataset"),
        ProtectTable("datasets_datasetversion"),
        ProtectTable("datasets_datasetversionevent"),
        TenantForeignKey("datasets_datasetversion", "dataset_id", "datasets_dataset"),
        TenantForeignKey("datasets_datasetversion", "upload_id", "datasets_upload"),
        TenantForeignKey("datasets_datasetversionevent", "job_id", "datasets_datasetversion"),
    ]
