"""An actor's side in an environment that has nothing of the platform: a peer's, or ours where a peer is compared with it.

Run as a script: FILE:CLASS and the class's arguments, all strings. The protocol is benchmarks.actor's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys


def main(target: str, *arguments: str) -> None:
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print is no result
    del sys.path[0]  # this folder: its modules have names that libraries have, too
    file, _, name = target.partition(":")
    spec = importlib.util.spec_from_file_location("contender", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contender"] = module
    spec.loader.exec_module(module)
    actor = getattr(module, name)(*arguments)
    for line in sys.stdin:
        method, keywords = json.loads(line)
        results.write(json.dumps(getattr(actor, method)(**keywords)) + "\n")
        results.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
