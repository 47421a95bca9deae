"""`python -m platform_site.engines HOME`: hold the engines of a home; started by whoever needs them first."""

import sys
from pathlib import Path

from platform_site.engines.holder import main

sys.exit(main(Path(sys.argv[1])))
