"""Draw the paper's figure `hopkins`, running what is missing: figure_hopkins.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=hopkins", *sys.argv[1:]]))
