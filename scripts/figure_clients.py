"""Draw the paper's figure `clients`, running what is missing: figure_clients.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=clients", *sys.argv[1:]]))
