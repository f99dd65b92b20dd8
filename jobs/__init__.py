"""What a cluster runs: `python -m jobs.<stage>`."""

import sys

from orchestrator.core.interrupt import end_at_once_if_interrupted

if sys.argv[0] == "-m":  # so Python calls a program while it imports the program's package
    end_at_once_if_interrupted()
