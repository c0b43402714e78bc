"""Draw the paper's figure `similarity_change`; profile=full draws it from all runs."""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=similarity_change", *sys.argv[1:]]))
