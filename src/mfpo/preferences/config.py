"""Settings of ``mfpo build``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mfpo.data.annotation_files import BoxFormat
from mfpo.data.source_config import SourceConfig
from mfpo.preferences.keyword_config import GraphKind, KeywordConfig
from mfpo.records import Schedule, Scope

if TYPE_CHECKING:
    from mfpo.preferences.regions.base import RegionOptions

MIN_SHARE = 0.001
MAX_SHARE = 0.6


@dataclass(frozen=True)
class RegionSettings:
    """Finding the keywords in the picture."""

    regions: str = "auto"
    """What finds the keywords in the picture: annotations, grounded-sam2, sam3, clipseg, owlv2-sam, or a
    class of your own as package.module:Class. auto: annotations if there are any, else grounded-sam2 on a
    GPU and clipseg without one."""
    annotations: str | None = None
    """Boxes or masks of the pictures: JSON Lines of image and boxes, or COCO instances."""
    box_format: BoxFormat | None = None
    """What the boxes are; recognised by default."""
    check_regions: bool = False
    """Compare the regions that a model found with the boxes of --annotations; the worst become pictures."""
    region_model: str | None = None
    """Checkpoint of the region backend instead of its own: a Hub name or a folder; DETECTOR,SEGMENTER for
    backends of two models."""
    region_revision: str | None = None
    """Revision of that checkpoint on the Hub: branch, tag or commit."""
    device: str = "auto"
    """Where the region backend computes: auto (the GPUs if there are any), cpu, cuda, cuda:1, mps."""
    region_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the region backend computes in; auto is bfloat16 on a GPU that can, else float32."""
    box_threshold: float | None = None
    """Score from which a detector's box counts; the backend's own by default."""
    mask_threshold: float | None = None
    """Probability from which a pixel belongs to a mask; the backend's own by default."""
    min_region: float = MIN_SHARE
    """Share of the picture below which what was found of a keyword is dropped as too small."""
    max_region: float = MAX_SHARE
    """Share of the picture above which what was found of a keyword is dropped as too large."""
    dilate: float = 0.0
    """Grow the regions by this fraction of the picture's shorter side."""


@dataclass(frozen=True)
class KeywordSettings:
    """Keywords of the chosen answers (paper 3.1)."""

    keywords: str = "multipartite"
    """How keywords are found: multipartite (ranked by the graph), nouns (all that name a visible thing),
    first (the first of them, a baseline), given (the source's column keywords), or a function of your own
    as package.module:name."""
    top_k: int = 5
    """K, how many keywords an answer keeps."""
    phi: float = KeywordConfig.phi
    """phi, how fast the positional weight 1/(1+distance^phi) falls with the distance in words."""
    gamma: float = KeywordConfig.gamma
    """gamma, weight of semantic similarity beside position."""
    alpha_ctx: float = KeywordConfig.alpha_ctx
    """alpha_ctx, how much a topic's first variant gains from its siblings."""
    position_decay: float = KeywordConfig.position_decay
    """lambda, how much candidates that come late in the answer lose."""
    damping: float = KeywordConfig.damping
    """a, share of a keyword's rank that comes from its neighbours."""
    topic_distance: float = KeywordConfig.topic_distance
    """Average Jaccard distance up to which candidates are one topic."""
    graph: GraphKind = KeywordConfig.graph
    """Join candidates of different topics only (multipartite) or all of them (complete)."""
    spacy_model: str = KeywordConfig.spacy_model
    """English spaCy pipeline: an installed package or a folder."""
    embedding_model: str = KeywordConfig.embedding_model
    """Sentence embeddings: the packaged MiniLM, or a folder or Hub name of a sentence-transformers model."""


@dataclass(frozen=True)
class NoiseSettings:
    """The rejected image."""

    noise_scope: Scope = "region"
    """What is perturbed: region (the keywords), global, random, crop, erase, swap or black."""
    noise_step: int = 500
    """Diffusion step t, 0 to 999. In units of the normalised pixels: the same step is about twice as strong a
    corruption for processors with mean and std 0.5 as for CLIP's."""
    noise_step_max: int | None = None
    """Draw each row's step uniformly from noise_step to this one."""
    noise_schedule: Schedule = "vcd"
    """Diffusion schedule; step 500 keeps 86% of the signal with vcd and 28% with ddpm-linear."""
    noise_fraction: float = 0.2
    """Share of the area that scope random perturbs."""
    noise_feather: float = 0.0
    """Let the noise of scopes region and random fade out over this share of the picture's shorter side; 0
    is a sharp edge."""
    seed: int = 0
    """Seed of the noise; a row's own seed is a hash of it and the row's id."""
    noise_image: int = 0
    """Which image of a row with several is searched and perturbed; -1 is the last."""
    materialize: bool = False
    """Also store the rejected images, as PNG at the model's resolution, for other tools."""
    model_name_or_path: str | None = None
    """Model whose image processor draws the rejected images of --materialize."""


@dataclass(frozen=True)
class RunSettings:
    """The work itself."""

    num_workers: int | None = None
    """Processes that open pictures and find regions; the rows are the same for any number. By default one
    for each GPU, one in all without."""
    max_workers: int | None = None
    """Engine ray: let the number of workers grow up to this; num_workers by default."""
    engine: Literal["local", "ray"] = "local"
    """Where pictures are searched: local (processes of this machine) or ray (actors, here or on a
    cluster)."""
    inspect: bool = False
    """Show how the first rows are understood, and write nothing."""
    dry_run: bool = False
    """Read everything and open every picture, count, and write nothing."""
    overwrite: bool = False
    """Replace a dataset that is in the folder already."""


@dataclass(frozen=True)
class OutputSettings:
    """The dataset that is written."""

    output_dir: str = ""
    """Folder for the dataset; `datasets.load_dataset` opens it."""
    push_to_hub: str | None = None
    """Also upload the dataset to this repository of the Hub (owner/name), with the token in HF_TOKEN."""
    hub_private_repo: bool = False
    """Make that repository private when it is created."""


@dataclass(frozen=True)
class BuildConfig(RunSettings, NoiseSettings, KeywordSettings, RegionSettings, OutputSettings, SourceConfig):
    """Add image preference to text preference: keywords of the chosen answers, their regions, and noise."""

    @property
    def backend(self) -> str:
        """The region backend that ``auto`` stands for here."""
        if self.regions == "auto" and self.annotations is not None and not self.check_regions:
            return "annotations"
        return self.regions

    @property
    def uses_keywords(self) -> bool:
        """See [`SourceConfig.uses_keywords`]."""
        return self.keywords == "given"

    def region_options(self) -> RegionOptions:
        """What the region backend may need."""
        from mfpo.preferences.regions.base import RegionOptions

        return RegionOptions(
            annotations=self.annotations,
            box_format=self.box_format,
            embedding_model=self.embedding_model,
            model=self.region_model,
            revision=self.region_revision,
            device=self.device,
            dtype=self.region_dtype,
            box_threshold=self.box_threshold,
            mask_threshold=self.mask_threshold,
        )

    def keyword_config(self) -> KeywordConfig:
        """The settings of the keyword graph.

        Raises:
            UserError: A value is out of its range.
        """
        return KeywordConfig(
            method=self.keywords,
            top_k=self.top_k,
            phi=self.phi,
            gamma=self.gamma,
            alpha_ctx=self.alpha_ctx,
            position_decay=self.position_decay,
            damping=self.damping,
            topic_distance=self.topic_distance,
            graph=self.graph,
            spacy_model=self.spacy_model,
            embedding_model=self.embedding_model,
        )
