"""Draw the paper's figure `alluvial`, running what is missing: figure_alluvial.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=alluvial", *sys.argv[1:]]))
