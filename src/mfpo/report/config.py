"""Settings of ``mfpo browse`` and ``mfpo report``."""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_TITLE = "Modality-fair preference optimization"


@dataclass(slots=True)
class BrowseConfig:
    """Settings of ``mfpo browse``."""

    dataset: str
    """Dataset folder to show."""

    output_file: str | None = None
    """HTML file to write; ``browse.html`` in the dataset folder if not given."""

    max_rows: int = 100
    """Rows shown at most, spread evenly over the dataset."""

    model_name_or_path: str | None = None
    """Model whose image processor renders the rejected images; CLIP's at 336 px (LLaVA-1.5) if not given."""


@dataclass(slots=True)
class ReportConfig:
    """Settings of ``mfpo report``."""

    runs: list[str] = field(metadata={"positional": True})
    """Run folders to show side by side."""

    output_file: str = "report.html"
    """HTML file to write."""

    title: str = DEFAULT_TITLE
    """Heading of the page."""

    model_cards: bool = False
    """Also write the README.md of each trained run again, now with its scores."""

    dataset: str | None = None
    """Dataset folder to show rows of; the one that the runs were trained on if not given."""

    model_name_or_path: str | None = None
    """Model whose image processor renders the rejected images; CLIP's at 336 px (LLaVA-1.5) if not given."""
