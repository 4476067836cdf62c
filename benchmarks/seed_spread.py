"""Whether more LLaVAs or more trainings of each make an experiment surer.

    python benchmarks/seed_spread.py docs/findings/recipe.json docs/findings/table5.json

For each metric of results with several SFT seeds and several training seeds: the standard deviation between
trainings of one LLaVA, and between LLaVAs that of the difference to the first arm (means over trainings),
both as medians over the arms. A second training of each LLaVA can only lessen the former.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from scipy.stats import t


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("results", nargs="+", type=Path, help="results.json of `mfpo experiment`")
    print(f"{'':24}{'metric':32}{'trainings':>10}{'LLaVAs':>10}")
    for path in parser.parse_args().results:
        for metric, (within, between) in spread(json.loads(path.read_text())["arms"]).items():
            print(f"{path.stem:24}{metric:32}{within:10.2f}{between:10.2f}")
    for count in (3, 6):
        half = t.ppf(0.975, count - 1) / math.sqrt(count)
        print(f"{count} LLaVAs: a 95% interval reaches {half:.2f} standard deviations to either side")


def spread(arms: list[dict]) -> dict[str, tuple[float, float]]:
    """Both standard deviations of each metric, in its own unit, medians over the arms."""
    first = {name: np.array(found["cells"], float) for name, found in arms[0]["metrics"].items()}
    found: dict[str, list[tuple[float, float]]] = {}
    for arm in arms[1:]:
        for name, metric in arm["metrics"].items():
            cells = np.array(metric["cells"], float)
            if name in first and min(cells.shape) > 1 and len(cells) == len(first[name]):
                effects = cells.mean(axis=1) - first[name].mean(axis=1)
                within = math.sqrt(cells.var(axis=1, ddof=1).mean())
                found.setdefault(name, []).append((within, float(effects.std(ddof=1))))
    return {name: tuple(np.median(pairs, axis=0)) for name, pairs in found.items()}


if __name__ == "__main__":
    main()
