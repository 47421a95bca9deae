"""A version as its files: written, read again, compared, traced, and exported."""
