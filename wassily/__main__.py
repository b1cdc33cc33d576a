"""`python -m wassily`: the same as the command `wassily`."""

import sys

from wassily.cli import main

if __name__ == "__main__":
    sys.exit(main())
