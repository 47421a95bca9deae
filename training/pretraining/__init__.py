"""Builds the platform's own small base model from the standard library. Pure Python: no Django in here."""
