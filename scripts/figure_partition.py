"""Draw the paper's figure `partition`, running what is missing: figure_partition.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=partition", *sys.argv[1:]]))
