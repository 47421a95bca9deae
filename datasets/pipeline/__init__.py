"""Turns the bytes of an upload into an immutable dataset version: parse, validate, dedup_exact, split, store.

Pure Python over Arrow tables, without Django; run as `python -m datasets.pipeline ATTEMPT_DIR` (the protocol is in
common/child.py). The web process imports `recipe`, `fingerprint`, and `store`, which import nothing heavy.
"""
