"""`python -m chaos.simulation`: the same as `flashblocks drill simulate`."""

from __future__ import annotations

import sys

from chaos.simulation.cli import app

if __name__ == "__main__":
    sys.exit(app(sys.argv[1:]))
