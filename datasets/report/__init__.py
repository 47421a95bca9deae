"""The HTML report of a finished version, made by a process of its own: Evidently takes seconds to import, and 420 MB.

Nothing but __main__.py and page.py imports it, and only a worker of the queue `datasets` starts those.
"""
