"""One process that is measured: `python -m fedtsd.bench.child KIND ARGUMENT...`.

The kinds: `rounds FOLDER OVERRIDE...` runs an experiment, `central OVERRIDE...` the plain loop that
it is compared with, `matmul DEVICE` products of large matrices.
"""

import sys
from contextlib import suppress

from fedtsd.bench.port import Closed, Port
from fedtsd.imports import fast_imports


def main(args: list[str]) -> int:
    """Serve the parent until it closes the pipe."""
    with suppress(Closed):
        serve(Port(), *args)
    return 0


def serve(port: Port, kind: str, *rest: str) -> None:
    """Do what this kind of child does. Raises Closed when the parent wants no more."""
    if kind == "rounds":
        with fast_imports():  # as `fedtsd train` does
            from fedtsd.bench.rounds import serve_rounds

        serve_rounds(port, rest[0], list(rest[1:]))
    elif kind == "central":
        from fedtsd.bench.central import serve_central

        serve_central(port, list(rest))
    else:
        from fedtsd.bench.machine import serve_matmul

        serve_matmul(port, rest[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
