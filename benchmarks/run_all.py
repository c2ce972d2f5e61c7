"""Run every benchmark and keep its figures in ``benchmarks/results/<date>-<cpu or gpu>.jsonl``: ``make bench``."""

import datetime
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the scripts one after another; ends with 1 if one of them failed."""
    scripts = sorted(path for path in HERE.glob("*.py") if path.name not in ("run_all.py", "figures.py", "material.py"))
    target = HERE / "results" / f"{datetime.date.today()}-{'gpu' if torch.cuda.is_available() else 'cpu'}.jsonl"
    target.parent.mkdir(exist_ok=True)
    failed = False
    with target.open("w") as results:
        for script in scripts:
            print(f"# {script.name}", file=sys.stderr, flush=True)
            run = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=False)
            print(run.stdout, end="", flush=True)
            results.write(run.stdout)
            failed |= run.returncode != 0
    print(f"wrote {target}", file=sys.stderr)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
