"""Draw the paper's figure `severity`, running what is missing: figure_severity.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=severity", *sys.argv[1:]]))
