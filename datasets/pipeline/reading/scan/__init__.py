"""Compiled readers of uploads that are large enough to pay for them: the only ones who import this are given such an upload.

What they do not understand to its end they leave to the readers that are always there, and take nothing more lightly than those.
"""
