"""python -m hieramp."""

import sys


def main() -> None:
    """Run a command; Ctrl-C while torch is still being loaded ends it as quietly as later."""
    try:
        from hieramp.commands.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
