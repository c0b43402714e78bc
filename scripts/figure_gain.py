"""Draw the paper's figure `gain`; profile=full draws it from all runs."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=gain", *sys.argv[1:]]))
