"""Settings of ``mfpo build``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfpo.data.annotations import BoxFormat
from mfpo.preferences.keyword_config import GraphKind, KeywordConfig, KeywordMethod
from mfpo.records import Schedule, Scope


@dataclass(frozen=True)
class BuildConfig:
    """Add image preference to text preference: keywords of the chosen answers, their regions, and noise."""

    dataset: str = ""
    """Text preferences: a JSONL, JSON, CSV or Parquet file, a dataset folder, or a name on the Hub."""
    output_dir: str = ""
    """Folder for the dataset; `datasets.load_dataset` opens it."""
    image_dir: str | None = None
    """Folder that relative image names are in; the dataset's own folder by default."""
    regions: str = "annotations"
    """What finds the keywords in the picture: annotations, or a class of your own as package.module:Class."""
    annotations: str | None = None
    """Boxes or masks of the pictures: JSON Lines of image and boxes, or COCO instances."""
    box_format: BoxFormat | None = None
    """What the boxes are; recognised by default."""
    keywords: KeywordMethod = "multipartite"
    """How keywords are ranked: by the multipartite graph, or first come first (a baseline)."""
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
    noise_scope: Scope = "region"
    """What is perturbed: region (the keywords), global, random, crop, erase, swap or black."""
    noise_step: int = 500
    """Diffusion step t, 0 to 999. In units of the normalised pixels: the same step is about twice as strong a
    corruption for processors with mean and std 0.5 as for CLIP's."""
    noise_schedule: Schedule = "vcd"
    """Diffusion schedule; step 500 keeps 86% of the signal with vcd and 28% with ddpm-linear."""
    noise_fraction: float = 0.2
    """Share of the area that scope random perturbs."""
    seed: int = 0
    """Seed of the noise; a row's own seed is a hash of it and the row's id."""
    num_workers: int = 1
    """Processes that decode pictures and find regions; the rows are the same for any number."""
    engine: Literal["local"] = "local"
    """Where the work is done."""
    inspect: bool = False
    """Show how the first rows are understood, and write nothing."""
    materialize: bool = False
    """Also store the rejected images, as PNG at the model's resolution, for other tools."""
    model_name_or_path: str | None = None
    """Model whose image processor draws the rejected images of --materialize."""
    dry_run: bool = False
    """Read everything and open every picture, count, and write nothing."""
    limit: int | None = None
    """Use only the first rows of the source."""
    overwrite: bool = False
    """Replace a dataset that is in the folder already."""

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
