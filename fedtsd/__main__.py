"""`python -m fedtsd` is `fedtsd`."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main())
