"""Where a run happens: what environment.json says."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedtsd import __version__

COMMAND = ["fedtsd", *sys.argv[1:]]  # as typed; Hydra is given another argv later
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "hydra-core")


def environment() -> dict[str, Any]:
    """Return where the run happens: versions, host, device, git commit of the working folder."""
    import torch

    return {
        "fedtsd": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "host": platform.node(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
        "command": COMMAND,
    }


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
