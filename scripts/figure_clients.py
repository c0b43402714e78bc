"""Draw the paper's figure `clients`; profile=full draws it from all runs."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=clients", *sys.argv[1:]]))
