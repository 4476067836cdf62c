"""English words with part of speech and lemma: a spaCy pipeline whose rules are asked once for each word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mfpo.errors import UserError
from mfpo.preferences.keyword_config import KeywordConfig

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DEFAULT_TAGGER = KeywordConfig.spacy_model
_RULES = ("attribute_ruler", "lemmatizer")
_BATCH = 64
_BLOCK = 96
"""Rows of every matrix product; kernels differ in the last bits between shapes."""
_KNOWN_WORDS = 500_000

Annotation: TypeAlias = tuple[int, int, int]
"""Tag, part of speech and lemma, as numbers of the vocabulary."""


class Tagger:
    """Tags texts; the network sees every text, the rules see every pair of word and tag once.

    spaCy's rules for part of speech and lemma look at a word and its tag alone, but for contractions such as
    "gonna", and take as long as the network. So their results are kept.

    Args:
        pipeline: A pipeline with a tagger, whose rules are among its components.
    """

    def __init__(self, pipeline: Language) -> None:
        self.pipeline = pipeline
        self._rules = [pipeline.get_pipe(name) for name in _RULES if name in pipeline.pipe_names]
        self._known: dict[tuple[int, int], Annotation] = {}
        _multiply_alike(pipeline)

    def __call__(self, text: str) -> Doc:
        """One text."""
        return next(self.pipe([text]))

    def pipe(self, texts: Iterable[str]) -> Iterator[Doc]:
        """Texts in their order."""
        for doc in self.pipeline.pipe(texts, batch_size=_BATCH, disable=_RULES):
            for token in doc:
                key = token.orth, token.tag
                known = self._known.get(key)
                if known is None:
                    known = self._known[key] = self._annotation(token.text, token.tag)
                token.tag, token.pos, token.lemma = known
            if len(self._known) > _KNOWN_WORDS:
                self._known.clear()
            yield doc

    def _annotation(self, word: str, tag: int) -> Annotation:
        """What the rules say of a word on its own."""
        from spacy.tokens import Doc

        doc = Doc(self.pipeline.vocab, words=[word], spaces=[False])
        doc[0].tag = tag
        for rule in self._rules:
            doc = rule(doc)
        return doc[0].tag, doc[0].pos, doc[0].lemma


def _multiply_alike(pipeline: Language) -> None:
    """Give the pipeline's networks a matrix product that is fast and sees nothing but a row.

    spaCy's own on a CPU takes several times as long, and NumPy's gives a row other last bits by the number of
    rows and its place among them on some processors, so that a tag could depend on the batch.
    """
    import torch
    from thinc.api import NumpyOps

    class BlockOps(NumpyOps):
        def gemm(self, x: Any, y: Any, out: Any = None, trans1: bool = False, trans2: bool = False) -> Any:
            left, right = (x.T if trans1 else x), torch.from_numpy(y.T if trans2 else y)
            rows = len(left)
            padded = np.zeros((-(-rows // _BLOCK) * _BLOCK, left.shape[1]), left.dtype)
            padded[:rows] = left
            blocks = torch.from_numpy(padded).split(_BLOCK)
            product = torch.cat([torch.mm(block, right) for block in blocks])[:rows].numpy()
            if out is None:
                return product
            out[...] = product
            return out

    ops = BlockOps(use_blis=False)
    for _, component in pipeline.pipeline:
        model = getattr(component, "model", None)
        for node in model.walk() if model is not None else ():
            if node.ops.device_type == "cpu":
                node.ops = ops


def load_tagger(name: str = DEFAULT_TAGGER) -> Tagger:
    """A spaCy pipeline that tags parts of speech and lemmas; parser and entities are left out.

    Args:
        name: Installed pipeline package (``en_core_web_sm``) or folder.

    Raises:
        UserError: No English pipeline with a tagger is installed under that name.
    """
    try:
        return _tagger(name)
    except (OSError, ImportError) as error:
        raise UserError(
            f"no spaCy pipeline is installed under this name: {str(error).splitlines()[0]}",
            where=f"spacy_model {name}",
            fix=f"`python -m spacy download {name}`, or leave it at the packaged {DEFAULT_TAGGER}",
        ) from error


@lru_cache(maxsize=4)
def _tagger(name: str) -> Tagger:
    import spacy

    pipeline = spacy.load(name, exclude=["parser", "ner", "senter", "entity_linker", "textcat"])
    if pipeline.lang != "en" or not {"tagger", "attribute_ruler"} <= set(pipeline.pipe_names):
        raise UserError(
            f"an English pipeline with a tagger is needed, not lang={pipeline.lang!r} "
            f"with {pipeline.pipe_names}",
            where=f"spacy_model {name}",
            fix=f"use an en_core_web_* pipeline, or the packaged {DEFAULT_TAGGER}",
        )
    return Tagger(pipeline)
