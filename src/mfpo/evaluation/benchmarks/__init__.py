"""One module per benchmark, all with the interface of ``base``; this is their table."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING

from mfpo.errors import UserError, nearest

if TYPE_CHECKING:
    from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings

BENCHMARKS = {
    "amber": "mfpo.evaluation.benchmarks.amber:AmberBenchmark",
    "chair": "mfpo.evaluation.benchmarks.chair:ChairBenchmark",
    "llava-bench": "mfpo.evaluation.benchmarks.llava_bench:LlavaBenchmark",
    "mmhal": "mfpo.evaluation.benchmarks.mmhal:MmhalBenchmark",
    "objhal": "mfpo.evaluation.benchmarks.objhal:ObjhalBenchmark",
    "pope": "mfpo.evaluation.benchmarks.pope:PopeBenchmark",
    "scenes": "mfpo.evaluation.benchmarks.scenes:ScenesBenchmark",
}
"""Where each benchmark's class is; nothing is imported before it is asked for."""


def benchmark_class(name: str) -> type[Benchmark]:
    """A benchmark's class by its name.

    Raises:
        UserError: There is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise UserError("unknown benchmark", where=f"--benchmark {name}", fix=nearest(name, BENCHMARKS))
    module, _, attribute = BENCHMARKS[name].partition(":")
    found: type[Benchmark] = getattr(importlib.import_module(module), attribute)
    return found


def load_benchmark(name: str, settings: BenchmarkSettings | None = None) -> Benchmark:
    """A benchmark by its name.

    Args:
        name: Key of [`BENCHMARKS`].
        settings: Which of its questions are asked; all when None.

    Raises:
        UserError: There is no such benchmark, or the settings don't fit any.
    """
    if settings is not None and settings.num_samples is not None and settings.num_samples < 1:
        raise UserError("at least one image is needed", where=f"--num_samples {settings.num_samples}")
    return _opened(name, settings)


@lru_cache(maxsize=4)
def _opened(name: str, settings: BenchmarkSettings | None) -> Benchmark:
    """Kept, because several models answer the same questions about the same pictures one after another."""
    return benchmark_class(name)(settings)
