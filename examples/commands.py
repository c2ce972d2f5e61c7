"""Run ``actioncache`` from a script as a user would at a terminal."""

import subprocess
import sys
from pathlib import Path

CLI = Path(__file__).resolve().parent.parent / "cli.py"


def actioncache(*arguments: str | Path, show: bool = True) -> str:
    """Run ``actioncache`` with these arguments; returns what it prints on stdout, ends the program if it fails."""
    words = [str(argument) for argument in arguments]
    if show:
        print("$ actioncache " + " ".join(words), flush=True)
    result = subprocess.run([sys.executable, str(CLI), *words], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        sys.exit(f"{result.stdout}\nactioncache {words[0]} ended with exit code {result.returncode}")
    return result.stdout
