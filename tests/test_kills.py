"""Runs that are killed end like runs that are left alone."""

import json
import subprocess
import sys
from pathlib import Path


def test_fifty_kills_change_no_byte(tmp_path) -> None:
    """At random moments, and in the middle of writing tables, checkpoints and all other files."""
    command = [sys.executable, "-m", "tests.kills", str(tmp_path), "25", "25", "0"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["different"] == []
    assert told["at random"] >= 25
    assert told["in a write"] >= 25
    assert told["runs_killed_twice_or_more"] >= 1
