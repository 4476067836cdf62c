"""Settings of ``mfpo browse`` and ``mfpo report``."""

from __future__ import annotations

from dataclasses import dataclass, field

from mfpo.difficulty.config import Estimator

DEFAULT_TITLE = "Modality-fair preference optimization"
NUM_PICTURES = 60


@dataclass(slots=True)
class BrowseConfig:
    """Settings of ``mfpo browse``."""

    dataset: str
    """Dataset folder to show."""

    output_file: str | None = None
    """HTML file that holds everything; ``browse.html`` in the dataset folder for up to 500 rows."""

    output_dir: str | None = None
    """Folder to write instead, images in files; ``browse`` in the dataset folder for more rows."""

    max_rows: int = 200
    """Rows shown at most, spread evenly over the dataset; 0 for all. Statistics are always of all rows."""

    image_size: int = 448
    """Longer side of images and masks on the page, in pixels."""

    exact_images: bool = True
    """Also render each rejected image exactly as the model gets it; without, there is the preview alone."""

    model_name_or_path: str | None = None
    """Model whose image processor renders the rejected images; CLIP's at 336 px (LLaVA-1.5) if not given."""

    verdicts: str | None = None
    """Verdicts exported from such a page; their rows are shown first of all, with verdict and note."""

    difficulty: Estimator = "paper"
    """Entropy to show of a dataset that `mfpo rank` has been over."""

    reference: str | None = None
    """Fingerprint of the reference pass to show; the latest if not given."""


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

    num_pictures: int = NUM_PICTURES
    """Items of each benchmark, the worst ones, whose pictures come onto the page; all items come with their
    answers."""

    data_dir: str | None = None
    """Folder where the benchmarks' pictures are looked for before the one that each was scored with."""

    dataset: str | None = None
    """Dataset folder to show rows of; the one that the runs were trained on if not given."""

    model_name_or_path: str | None = None
    """Model whose image processor renders the rejected images; CLIP's at 336 px (LLaVA-1.5) if not given."""
