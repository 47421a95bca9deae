"""The files of a version, as the pipeline leaves them: rows, and what was left out."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

CONTENT = b'{"text": "the same in both"}\n'


def store_files(prefix: str, word: str) -> None:
    row = {"prompt": word, "completion": word, "text": word, "messages": f'["{word}"]', "line": 1}
    row |= {"source": word, "upload": word, "changed_by": word, "digest": word.ljust(16)[:16].encode()}
    rejection = {"line": 1, "field": word, "step": word, "reason": word, "excerpt": word}
    for name in ("train", "validation", "test"):
        default_storage.save(f"{prefix}/{name}-00000.parquet", _parquet(row))
    default_storage.save(f"{prefix}/rejections-00000.parquet", _parquet(rejection))
    files = [
        {"name": f"{split.lower()}-00000.parquet", "split": split, "rows": 1, "sha256": f"{word} {split}"}
        for split in ("TRAIN", "VALIDATION", "TEST")
    ]
    default_storage.save(f"{prefix}/manifest.json", ContentFile(json.dumps({"files": files}).encode()))
    place = {"line": 1, "source": word}
    masked = {**place, "kind": word, "field": word, "before": word, "after": word}
    dropped = {**place, "similarity": 1.0, "excerpt": word, "kept_excerpt": word}
    cluster = {**place, "excerpt": word, "size": 2, "dropped": [dropped]}
    samples = json.dumps({"masked_places": [masked], "duplicate_clusters": [cluster]})
    default_storage.save(f"{prefix}/samples.json", ContentFile(samples))


def _parquet(row: dict[str, Any]) -> ContentFile[bytes]:
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), file)
    return ContentFile(file.getvalue())
