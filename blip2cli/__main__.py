"""The console script, and `python -m blip2cli`."""

import sys

from blip2cli.host.signals import EXIT_CODE, ending, interruptible
from blip2cli.host.stopwatch import restart_clock


def main() -> None:
    """Start the command line. Ctrl-C and SIGTERM are told in a line from the first moment, while it is imported too."""
    restart_clock()
    try:
        interruptible()
        from blip2cli.cli import main as start

        start()
    except KeyboardInterrupt:
        ending()
        print("blip2: interrupted", file=sys.stderr)
        sys.exit(EXIT_CODE)
    finally:
        ending()


if __name__ == "__main__":
    main()
