"""Draw the paper's figure `gain`, running what is missing: figure_gain.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=gain", *sys.argv[1:]]))
