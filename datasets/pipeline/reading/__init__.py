"""From an upload's bytes to rows: formats, columns, and what is rejected with its place."""
