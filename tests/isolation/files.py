"""The files of a version, as the pipeline leaves them: rows, and what was left out."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

CONTENT = b'{"text": "the same in both"}\n'


def store_files(prefix: str, word: str) -> None:
    row = {"prompt": word, "completion": word, "text": word, "messages": f'["{word}"]', "line": 1}
    row |= {"source": word, "upload": word, "changed_by": word}
    rejection = {"line": 1, "field": word, "step": word, "reason": word, "excerpt": word}
    for name in ("train", "validation", "test"):
        default_storage.save(f"{prefix}/{name}-00000.parquet", _parquet(row))
    default_storage.save(f"{prefix}/rejections-00000.parquet", _parquet(rejection))


def _parquet(row: dict[str, Any]) -> ContentFile[bytes]:
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), file)
    return ContentFile(file.getvalue())
