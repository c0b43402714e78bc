"""Draw the paper's figure `rounds`; profile=full draws it from all runs."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=rounds", *sys.argv[1:]]))
