"""``python -m retr`` and the console script: the command line, also when it is interrupted before it is there."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from retr.cli.main import main as run
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("error: interrupted; what was committed is kept\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
