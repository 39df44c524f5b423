"""``python -m retr``."""

from retr.cli.main import main

if __name__ == "__main__":
    main()
