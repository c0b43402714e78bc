"""Draw the paper's figure `personal_layers`; profile=full draws it from all runs."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=personal_layers", *sys.argv[1:]]))
