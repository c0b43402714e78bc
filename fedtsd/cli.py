"""The command line: `fedtsd train | report | figures | search | bench | methods | data`.

Heavy imports stay inside the commands, so that help comes at once.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedtsd import __version__
from fedtsd.catalogue import describe_methods, describe_train
from fedtsd.disk import refusals
from fedtsd.errors import InputError, StorageError, Terminated
from fedtsd.imports import fast_imports

HELP = """\
fedtsd: experiments in clustered, personalised federated learning

  fedtsd train [OVERRIDES]       run an experiment; `fedtsd train --help` shows what can be set
  fedtsd train -m [OVERRIDES]    sweep: values separated by commas make one run each; the same
                                 command again runs what is missing
  fedtsd train resume=FOLDER     continue a run that was stopped
  fedtsd report FOLDER...        tables, statistics, figures and a page about runs and sweeps
  fedtsd figures [profile=full]  draw the paper's figures, running what is missing for them
  fedtsd figures FOLDER...       draw the figures of runs and sweeps again, from their tables
  fedtsd search OVERRIDES        search for the best values by validation score
  fedtsd bench                   measure how fast the engines are on this machine
  fedtsd methods                 list the methods; `fedtsd methods NAME` says what one shares
  fedtsd data                    list the data sets; `fedtsd data get NAME` fetches one
  fedtsd data show [OVERRIDES]   what each client would hold, and how much clients differ
  fedtsd --version

Complete overrides in your shell: eval "$(fedtsd train -sc install=bash)"
"""

METHODS_HELP = """\
usage: fedtsd methods                      list the methods
       fedtsd methods NAME [OVERRIDES]     what a method shares, keeps, sends, trains and serves

Overrides are those of `fedtsd train`: a method shares other layers of another model.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 wrong input."""
    args = sys.argv[1:] if argv is None else argv
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "report": _report,
        "figures": _figures,
        "search": _search,
        "bench": _bench,
        "methods": _methods,
        "data": _data,
    }
    try:
        if args[:1] == ["-sc"]:
            return _complete(args, commands)
        if not args or args[0] in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if args[0] == "--version":
            print(f"fedtsd {__version__}")
            return 0
        if args[0] not in commands:
            return _refuse(args[0], commands)
        with refusals(Path.cwd()):
            return commands[args[0]](args[1:])
    except (InputError, StorageError) as error:
        print(f"fedtsd: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt as stop:
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # the reader of our output has gone, as in `fedtsd methods | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _train(args: list[str]) -> int:
    if any(arg in ("-h", "--help") for arg in args):
        print(describe_train(), end="")
        return 0
    with fast_imports():
        from fedtsd import launch

    launch.SIGNALS.listen()
    resume = [arg.partition("=")[2] for arg in args if arg.startswith("resume=")]
    if resume and resume[-1] not in ("", "null"):
        others = [arg for arg in args if not arg.startswith("resume=")]
        return launch.resume(Path(resume[-1]), others)
    if {"-m", "--multirun"} & set(args) and not any(_is_flag(arg) for arg in args):
        with fast_imports():
            from fedtsd.sweep import sweep

        return sweep(args)
    return launch.train(args)


def _is_flag(arg: str) -> bool:
    """Return whether this is one of Hydra's own flags, such as --cfg."""
    return arg.startswith("-") and arg not in ("-m", "--multirun")


def _report(args: list[str]) -> int:
    with fast_imports():
        from fedtsd.report.command import report_command

    return report_command(args)


def _figures(args: list[str]) -> int:
    with fast_imports():
        from fedtsd.report.paper import figures_command

    return figures_command(args)


def _search(args: list[str]) -> int:
    with fast_imports():
        from fedtsd.launch import SIGNALS
        from fedtsd.search import search_command

    SIGNALS.listen()
    return search_command(args)


def _bench(args: list[str]) -> int:
    from fedtsd.bench.command import bench_command

    return bench_command(args)


def _methods(args: list[str]) -> int:
    if not args:
        print(describe_methods(), end="")
        return 0
    if any(arg in ("-h", "--help") for arg in args):
        print(METHODS_HELP, end="")
        return 0
    with fast_imports():
        from fedtsd.contract import describe_method

    print(describe_method(args[0], args[1:]), end="")
    return 0


def _data(args: list[str]) -> int:
    from fedtsd.data.command import data_command

    return data_command(args)


def _complete(args: list[str], commands: dict[str, Any]) -> int:
    """Answer the shell's question what may follow; Hydra knows the overrides of `train`."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) > 2 and words[1] == "train":
        with fast_imports():
            from fedtsd import launch

        # Hydra expects the overrides right after the program's name.
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        return launch.train(args)
    start = words[1] if len(words) == 2 else ""
    print(" ".join(name for name in commands if name.startswith(start)))
    return 0


def _refuse(command: str, commands: dict[str, Any]) -> int:
    import difflib

    near = difflib.get_close_matches(command, commands, n=1)
    hint = f"did you mean {near[0]}?" if near else f"legal: {', '.join(commands)}"
    print(f"fedtsd: command {command!r} is unknown; {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
