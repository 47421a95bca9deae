"""A clock that can be moved under running processes: clock.c between them and the kernel.

    clock = Clock(tmp_path / "clock")                      # a new folder
    Installation(root, environment=clock.environment); clock.move(300)

What is moved is the platform's clock. PostgreSQL keeps the machine's, unless it is started with such an environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.proof import NotProven

SOURCE = Path(__file__).with_name("clock.c")
BYTES = 8


class Clock:
    def __init__(self, folder: Path) -> None:
        """Raises NotProven where there is no C compiler."""
        folder.mkdir(parents=True)
        self._file, library = folder / "offset", folder / "clock.so"
        self._file.write_bytes(bytes(BYTES))
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise NotProven("moving a clock needs a C compiler: apt-get install gcc libc6-dev") from None
        except subprocess.CalledProcessError as error:
            raise NotProven(f"clock.c cannot be compiled (is libc6-dev installed?): {error.stderr[:500]}") from None
        self.environment = {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(self._file)}

    def move(self, seconds: float) -> None:
        """Let the clock be `seconds` ahead of the machine's; proven by what a process sees."""
        with self._file.open("r+b") as file:  # in place: processes have it mapped
            file.write(int(seconds * 1e9).to_bytes(BYTES, sys.byteorder, signed=True))
        ahead = self.seen_ahead_s()
        if abs(ahead - seconds) > 2:
            raise NotProven(f"a process sees a clock that is {ahead:.1f} s ahead, not {seconds:.1f}")

    def seen_ahead_s(self) -> float:
        """How far ahead of the machine's clock a new process sees this one."""
        command = [sys.executable, "-I", "-S", "-c", "import time; print(time.time())"]
        seen = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, check=True)
        return float(seen.stdout) - time.time()
