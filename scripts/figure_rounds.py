"""Draw the paper's figure `rounds`, running what is missing: figure_rounds.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=rounds", *sys.argv[1:]]))
