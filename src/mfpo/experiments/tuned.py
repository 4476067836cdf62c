"""Learning rates of the arms, chosen on validation scenes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mfpo.errors import UserError
from mfpo.experiments.reading import load_text, read_yaml
from mfpo.experiments.schema import Arm


@dataclass(frozen=True)
class Tuned:
    """Learning rates by the name of the arm they were chosen for.

    Attributes:
        rates: The rates.
        fallback: Rate of arms that no sweep has chosen one for.
    """

    rates: dict[str, float]
    fallback: float

    def rate(self, arm: Arm) -> float:
        """The rate of an arm."""
        return self.rates.get(arm.tuned_as, self.fallback)

    def untuned(self, arms: tuple[Arm, ...]) -> list[str]:
        """Names of trained arms for which no rate was chosen."""
        trained = [arm for arm in arms if arm.train is not None and "learning_rate" not in arm.train]
        return [arm.name for arm in trained if arm.tuned_as not in self.rates]


def load_tuned(path: str | None = None) -> Tuned:
    """The learning rates of a file of `mfpo experiment learning_rates`, or the packaged ones.

    Raises:
        UserError: The file cannot be read or holds something else.
    """
    if path is None:
        text = resources.files("mfpo.experiments").joinpath("tuned.yaml").read_text(encoding="utf-8")
    else:
        text = load_text(Path(path))
    content = read_yaml(text, path or "tuned.yaml")
    try:
        rates = {str(name): float(rate) for name, rate in content["learning_rates"].items()}
        return Tuned(rates, float(content["fallback"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            "no file of learning rates",
            where=path or "tuned.yaml",
            fix="`mfpo experiment learning_rates` writes tuned.yaml",
        ) from None
