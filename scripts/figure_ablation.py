"""Draw the paper's figure `ablation`, running what is missing: figure_ablation.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=ablation", *sys.argv[1:]]))
