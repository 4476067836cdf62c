"""How much data and work an experiment is, the same for every arm."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mfpo.records import Schedule


@dataclass(frozen=True, slots=True)
class Budget:
    """How much data and work, the same for every arm.

    Attributes:
        num_rows: Preference rows.
        num_epochs: Passes over them.
        batch_size: Rows an optimiser step.
        num_test: Unseen scenes that answers are scored on.
        num_validation: Scenes that settings are chosen on.
        num_edited: Drawings of the grounding probe.
        num_probe: Rows of the distortion and attention probes.
        num_matched: Scenes that are described several times, for the comparison at equal Cover.
        samples: Descriptions of each of them.
        semantic_samples: Answers sampled for the semantic entropy of a row.
        noise_step: Diffusion step of the region noise.
        noise_schedule: Its schedule.
        short: Train the scene model hardly at all, and take rejected answers from templates.
    """

    num_rows: int = 1200
    num_epochs: int = 2
    batch_size: int = 16
    num_test: int = 1000
    num_validation: int = 500
    num_edited: int = 500
    num_probe: int = 200
    num_matched: int = 500
    samples: int = 8
    semantic_samples: int = 10
    noise_step: int = 900
    noise_schedule: Schedule = "vcd"
    short: bool = False


QUICK = replace(
    Budget(),
    num_rows=96,
    num_epochs=1,
    num_test=32,
    num_validation=32,
    num_edited=32,
    num_probe=32,
    num_matched=16,
    samples=4,
    semantic_samples=2,
    short=True,
)
"""To see that everything runs; the numbers mean nothing."""

QUICK_NOTE = "Made with --quick: the numbers mean nothing."
