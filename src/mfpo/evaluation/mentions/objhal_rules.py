"""Object HalBench's own list of synonyms, which the variant ``objhal`` of CHAIR uses as well."""

from __future__ import annotations

from mfpo.evaluation.answer_files import read_text
from mfpo.evaluation.mentions.coco import Rules, make_rules, read_synonyms
from mfpo.evaluation.official_data import DataFile, locate

SYNONYMS = DataFile(
    ("synonyms_refine.txt", "eval/data/synonyms_refine.txt", "objhalbench/synonyms_refine.txt"),
    "CC BY-NC 4.0",
    sha256="681041d2958d7871ed6fa69c3108f34aa6a0a354eb53ed4c5a425e65f86bc72a",
    how="get eval/data/synonyms_refine.txt of https://github.com/RLHF-V/RLAIF-V",
)


def objhal_rules(data_dir: str | None, *, strict: bool) -> Rules:
    """Synonyms and pairs of words: every synonym of two words, and two that are no object."""
    synonyms = read_synonyms(read_text(locate(SYNONYMS, data_dir)), strip=True)
    doubles = [word for line in synonyms for word in line if " " in word]
    return make_rules(synonyms, [*doubles, "home plate", "train track"], lower=strict)
