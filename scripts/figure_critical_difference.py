"""Draw the paper's figure `critical_difference`, running what is missing: figure_critical_difference.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=critical_difference", *sys.argv[1:]]))
