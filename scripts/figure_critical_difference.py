"""Draw the paper's figure `critical_difference`; profile=full draws it from all runs."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=critical_difference", *sys.argv[1:]]))
