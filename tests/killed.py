"""Commands of ``mfpo`` that are killed hard, with SIGKILL, in the middle of a long pass over the rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import torch

import mfpo.difficulty.chunks as chunks


def same_threads() -> dict[str, str]:
    """Environment of a process whose sums have the last bits of the caller's: with as many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def kill_after_chunks(count: int, *arguments: str, rows: int = 4) -> None:
    """Run a command in a process of its own, which dies once it has stored so many chunks.

    Args:
        count: Number of chunks, those of all passes that the command makes.
        arguments: The command, without ``mfpo``.
        rows: Rows of a chunk.
    """
    command = [sys.executable, __file__, str(rows), str(count), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=300, text=True, env=same_threads())
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


def _main(rows: int, count: int, arguments: list[str]) -> int:
    from mfpo.cli.main import main

    chunks.CHUNK_ROWS = rows
    save, stored = chunks.Chunk.save, 0

    def save_and_die(self, *args):
        nonlocal stored
        save(self, *args)
        stored += 1
        if stored == count:
            os.kill(os.getpid(), signal.SIGKILL)

    chunks.Chunk.save = save_and_die
    return main(arguments)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
