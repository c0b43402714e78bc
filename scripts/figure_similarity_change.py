"""Draw the paper's figure `similarity_change`, running what is missing: figure_similarity_change.py [profile=full]"""

import sys

from fedtsd.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", "figure=similarity_change", *sys.argv[1:]]))
