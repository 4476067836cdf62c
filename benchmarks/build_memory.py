"""Peak memory of `mfpo build`, for few rows and for many.

    python benchmarks/build_memory.py --rows 1000 50000

Each build runs in a process of its own on synthetic rows with pictures of 96 pixels that all differ; its
largest resident set is what the system reports for it. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synthetic_rows import write_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 50_000])
    parser.add_argument("--num_workers", type=int, default=1)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in arguments.rows:
            mebibytes, seconds = build(Path(folder), rows, arguments.num_workers)
            results.append({"rows": rows, "peak_mib": round(mebibytes), "seconds": round(seconds, 1)})
            print(f"{rows:>8} rows   {mebibytes:7.0f} MiB at most   {rows / seconds:7.0f} rows a second")
    growth = results[-1]["peak_mib"] / results[0]["peak_mib"]
    print(json.dumps({"builds": results, "growth": round(growth, 3), "num_workers": arguments.num_workers}))


def build(folder: Path, rows: int, workers: int) -> tuple[float, float]:
    """Peak memory of the build in MiB, and its time in seconds."""
    pairs, annotations = write_rows(folder / str(rows), rows)
    command = [sys.executable, "-m", "mfpo.cli", "build", "--dataset", str(pairs)]
    command += ["--annotations", str(annotations), "--num_workers", str(workers)]
    command += ["--output_dir", str(folder / f"out-{rows}")]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("the build failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - start


if __name__ == "__main__":
    main()
