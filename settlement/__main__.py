"""The program `settlement`. Reading its modules takes a moment; an interrupt ends it as quietly then as later on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command of this process's arguments and end it with its exit code; 130 when it was interrupted."""
    try:
        from settlement import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
