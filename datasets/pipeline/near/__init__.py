"""Finds documents that are nearly the same: MinHash signatures, bands, and the exact Jaccard similarity of what they suggest.

Pure Python over Arrow and numpy, and over loops that numba compiles where an upload is large (`arithmetic`). `choices` imports
nothing heavy; `index` has the two passes: `add` batch after batch, then `clusters`, which reads again only those documents
that may have a near-duplicate.
"""
