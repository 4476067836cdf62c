"""Kill a build again and again, and compare what comes out with a build that was left alone.

    python benchmarks/interruptions.py --engine local --rows 2000 --kills 20

At random moments `kill -9` hits the build itself or, every other time, one of its worker processes; a killed
build is started again until it ends. Then the finished folder must hold the same bytes as that of an
uninterrupted build with one process. The region backend is one of the script's own that takes its time with
each picture, so that the kills fall into the search; some pictures are broken, so that there are skips to
lose. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from mfpo.data.folder import open_dataset, shard_files
from synthetic_rows import write_rows

BACKEND = '''
import hashlib, os, time
from mfpo.preferences.regions.masks import box_mask, encode_rle
from mfpo.records import Region


class Slow:
    """Boxes that depend on picture and keyword alone."""

    def segment(self, image, keywords, *, name=None):
        time.sleep(float(os.environ['SECONDS_A_PICTURE']))
        regions = []
        for keyword in keywords:
            digest = hashlib.sha256(keyword.encode() + image.tobytes()).digest()
            x, y = digest[0] % (image.width // 2), digest[1] % (image.height // 2)
            box = (float(x), float(y), float(x + image.width // 3), float(y + image.height // 3))
            size = image.height, image.width
            regions.append(Region(keyword, box, 0.5, encode_rle(box_mask(box, size)), size))
        return regions
'''


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--seconds_a_picture", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), arguments)
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


def compare(folder: Path, arguments: argparse.Namespace) -> dict:
    """Build once undisturbed and once under fire."""
    pairs, _ = write_rows(folder / "source", arguments.rows, broken_every=97)
    (folder / "slow_backend.py").write_text(BACKEND)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment["MFPO_CACHE"] = str(folder / "cache")
    command = [
        sys.executable,
        "-m",
        "mfpo.cli",
        "build",
        "--dataset",
        str(pairs),
        "--regions",
        "slow_backend:Slow",
    ]
    alone = [*command, "--output_dir", str(folder / "alone")]
    environment["SECONDS_A_PICTURE"] = "0"
    subprocess.run(alone, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment["SECONDS_A_PICTURE"] = str(arguments.seconds_a_picture)
    under_fire = [*command, "--output_dir", str(folder / "fire"), "--engine", arguments.engine]
    under_fire += ["--num_workers", str(arguments.num_workers)]
    start = time.perf_counter()
    kills = disturb(under_fire, environment, arguments.kills, random.Random(arguments.seed), folder / "log")
    seconds = time.perf_counter() - start
    one, other = folder / "alone", folder / "fire"
    ids = open_dataset(other).ids
    equal = contents(one) == contents(other)
    skips = (one / "skipped.jsonl").read_bytes() == (other / "skipped.jsonl").read_bytes()
    print(f"engine {arguments.engine}: {kills['build']} kills of the build, {kills['worker']} of workers")
    print(
        f"rows {len(ids)}, each once: {len(ids) == len(set(ids))}; "
        f"shards equal: {equal}; skips equal: {skips}"
    )
    return {
        "engine": arguments.engine,
        "rows": len(ids),
        "kills": kills,
        "equal": equal and skips and len(ids) == len(set(ids)),
        "seconds": round(seconds, 1),
    }


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in shard_files(folder)]


def disturb(
    command: list[str], environment: dict[str, str], kills: int, chance: random.Random, log: Path
) -> dict[str, int]:
    """Run a command to its end, killed now and then; says what was killed how often."""
    done = {"build": 0, "worker": 0}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        while True:
            try:
                process.wait(chance.uniform(1.0, 9.0) if sum(done.values()) < kills else None)
            except subprocess.TimeoutExpired:
                if sum(done.values()) % 2:
                    done["worker"] += kill_worker(process, chance)
                    continue
                process.send_signal(signal.SIGKILL)
                process.wait()
                done["build"] += 1
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                continue
            if process.returncode != 0:
                sys.exit(f"the build failed:\n{log.read_text()[-3000:]}")
            return done


def kill_worker(build: subprocess.Popen, chance: random.Random) -> bool:
    """Kill one process that searches pictures as soon as there is one; False if the build ends before."""
    while build.poll() is None:
        workers = []
        for child in psutil.Process(build.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if "spawn_main" in line or line.startswith("ray::_Host"):
                    workers.append(child)
        if workers:
            chance.choice(workers).kill()
            return True
        time.sleep(0.2)
    return False


if __name__ == "__main__":
    main()
