"""The console script, and `python -m blip2cli`."""

import sys


def main() -> None:
    """Start the command line, whose imports take a moment in which Ctrl-C is quiet."""
    try:
        from blip2cli.cli import main as start

        start()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
