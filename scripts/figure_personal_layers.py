"""Draw the paper's figure `personal_layers`, running what is missing: figure_personal_layers.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=personal_layers", *sys.argv[1:]]))
