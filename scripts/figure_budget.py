"""Draw the paper's figure `budget`, running what is missing: figure_budget.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=budget", *sys.argv[1:]]))
