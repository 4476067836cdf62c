from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mfpo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations
from mfpo.errors import RowError, UserError
from mfpo.preferences.regions.base import RegionOptions, check_backend, load_backend
from mfpo.preferences.regions.given import GivenRegions
from mfpo.preferences.regions.masks import decode_rle, encode_rle
from mfpo.records import Region

GROUPS = {"sofa": 0, "couch": 0, "settee": 0}


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Words of one group have cosine 0.96, others 0."""
    vectors = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in enumerate(texts):
        if text in GROUPS:
            vectors[row, GROUPS[text]] = 1.0 if text == "sofa" else 0.96
            vectors[row, 1] = 0.0 if text == "sofa" else 0.28
        else:
            vectors[row, 2 + sum(text.encode()) % 62] = 1.0
    return vectors


def backend(*objects: AnnotatedObject, size: tuple[int, int] | None = None) -> GivenRegions:
    return GivenRegions(Annotations([AnnotatedImage("a.png", objects, size=size)]), embed)


@pytest.mark.parametrize(
    ("keyword", "labels", "expected"),
    [
        ("mug", ["mug", "plate"], {"mug"}),
        ("mugs", ["mug"], {"mug"}),
        ("Mug", ["mugs"], {"mugs"}),
        ("dark blue t-shirt", ["shirt", "shorts"], {"shirt"}),
        ("t-shirt", ["T-Shirt"], {"T-Shirt"}),
        ("red car", ["car", "red car", "blue car"], {"red car"}),
        ("red car", ["car", "blue car"], {"car"}),
        ("car", ["red car", "blue car"], {"red car", "blue car"}),
        ("red car", ["blue car"], set()),
        ("children", ["child"], {"child"}),
        ("two people", ["person"], {"person"}),
        ("a young woman in a red coat", ["person", "coat"], {"person"}),
        ("firemen", ["Person", "fire hydrant"], {"Person"}),
        ("skateboarders", ["people", "skateboard"], {"people"}),
        ("snowboarder", ["snowboard"], set()),
        ("the man", ["man", "person"], {"man"}),
        ("ladies", ["lady"], {"lady"}),
        ("ladies", ["person"], {"person"}),
        ("waitresses", ["person"], {"person"}),
        ("passersby", ["person"], {"person"}),
        ("man", ["man."], {"man."}),
        ("police officer", ["police_officer"], {"police_officer"}),
        ("snow-skier", ["person"], {"person"}),
        ("the batter", ["bat"], set()),
        ("pitcher", ["person", "glove"], {"person"}),
        ("pitcher of water", ["person"], set()),
        ("the pitcher", ["person", "glove"], {"person"}),
        ("two catchers", ["person"], {"person"}),
        ("cake batter", ["person"], set()),
        ("baseball catcher", ["catcher"], {"catcher"}),
        ("young batter", ["batter"], {"batter"}),
        ("glass pitcher", ["pitcher"], {"pitcher"}),
        ("catcher", ["baseball catcher"], {"baseball catcher"}),
        ("pitcher", ["water pitcher", "person"], {"water pitcher"}),
        ("baseball pitchers", ["pitcher", "person"], {"pitcher"}),
        ("skiers", ["skis"], set()),
        ("skis", ["skier"], set()),
        ("blu-ray player", ["person"], set()),
        ("vcr player", ["person"], set()),
        ("ceiling fan", ["person"], set()),
        ("speakers", ["person"], set()),
        ("dvd player", ["person"], set()),
        ("tennis players", ["person"], {"person"}),
        ("fireman hydrant", ["person"], set()),
        ("snowman", ["person"], set()),
        ("player piano", ["person"], set()),
        ("firemen", ["fireman"], {"fireman"}),
        ("shelves", ["shelf"], {"shelf"}),
        ("glass of wine", ["glass"], {"glass"}),
        ("wine glass", ["wine bottle"], set()),
        ("dog", ["dog house"], set()),
        ("", ["dog"], set()),
        ("dog", [], set()),
    ],
)
def test_matching_by_words(keyword: str, labels: list[str], expected: set[str]) -> None:
    assert backend().match(keyword, labels)[0] == expected


def test_matching_by_meaning_comes_second() -> None:
    assert backend().match("sofa", ["plate", "couch"]) == ({"couch"}, pytest.approx(0.96, abs=1e-4))
    assert backend().match("sofa", ["couch", "old sofa"]) == ({"old sofa"}, 1.0)
    assert backend().match("sofa", ["plate"]) == (set(), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "label", "same"),
    [
        ("sofa", "couch", True),
        ("bicycle", "bike", True),
        ("bathroom", "toilet", False),
        ("kid", "child", True),
        ("mom", "mother", True),
        ("television", "tv", True),
        ("dog", "cat", False),
        ("wine glass", "wine bottle", False),
        ("traffic light", "street light", False),
        ("boy", "girl", False),
        ("table", "chair", False),
        ("skier", "ski", False),
        ("ski", "skier", False),
        ("skaters", "skate", False),
        ("kiteboarder", "kite", False),
        ("kite", "kiteboarder", False),
    ],
)
def test_the_packaged_embeddings_and_the_threshold(keyword: str, label: str, same: bool) -> None:
    given = GivenRegions(Annotations([]))
    assert (given.match(keyword, [label])[0] == {label}) is same


PICTURE = Image.new("RGB", (60, 40))


def test_every_instance_is_a_region_and_boxes_are_clipped() -> None:
    given = backend(
        AnnotatedObject("mug", (10, 5, 20, 15)),
        AnnotatedObject("mug", (50, 30, 90, 90)),
        AnnotatedObject("fork", (0, 0, 1, 1)),
    )
    first, second = given.segment(PICTURE, ["mug", "spoon"], name="images/a.png")
    assert (first.keyword, first.box, first.score, first.size) == ("mug", (10, 5, 20, 15), 1.0, (40, 60))
    assert second.box == (50, 30, 60, 40)
    expected = np.zeros((40, 60), dtype=bool)
    expected[5:15, 10:20] = True
    assert np.array_equal(decode_rle(first.rle, (40, 60)), expected)


def test_masks_are_used_when_they_are_there() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[3:9, 4:6] = True
    given = backend(
        AnnotatedObject("mug", None, rle=encode_rle(mask), size=(40, 60)),
        AnnotatedObject("cup", (0, 0, 30, 30), uncompressed=(0, 2400), size=(40, 60)),
        AnnotatedObject("pot", (0, 0, 30, 30), polygons=((1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0),)),
    )
    mug, cup, pot = given.segment(PICTURE, ["mug", "cup", "pot"], name="a.png")
    assert mug.box == (4, 3, 6, 9) and np.array_equal(decode_rle(mug.rle, mug.size), mask)
    assert decode_rle(cup.rle, cup.size).all() and cup.box == (0, 0, 30, 30)
    assert decode_rle(pot.rle, pot.size).sum() == 4


def test_what_lies_outside_is_not_found() -> None:
    assert backend(AnnotatedObject("mug", (70, 5, 80, 15))).segment(PICTURE, ["mug"], name="a.png") == []


def test_pictures_without_annotations() -> None:
    given = backend(AnnotatedObject("mug", (1, 1, 2, 2)))
    assert given.segment(PICTURE, ["mug"], name="b.png") == []
    assert given.segment(PICTURE, ["mug"]) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (backend(AnnotatedObject("mug", (1, 1, 2, 2)), size=(80, 60)), "annotation-size"),
        (backend(AnnotatedObject("mug", rle="04", size=(4, 4))), "annotation-size"),
        (backend(AnnotatedObject("mug", rle="zz", size=(40, 60))), "broken-annotation"),
    ],
)
def test_annotations_of_another_picture(given: GivenRegions, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        given.segment(PICTURE, ["mug"], name="a.png")
    assert caught.value.reason == reason


OWN_BACKEND = """
class Everything:
    def segment(self, image, keywords, *, name=None):
        return []

class Nothing:
    pass
"""


def test_a_backend_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_regions_backend.py").write_text(OWN_BACKEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    found: list[Region] = load_backend("own_regions_backend:Everything").segment(PICTURE, ["mug"])
    assert found == []
    with pytest.raises(UserError, match="did you mean 'Everything'"):
        load_backend("own_regions_backend:Everythin")
    with pytest.raises(UserError, match="has no method `segment`"):
        load_backend("own_regions_backend:Nothing")
    with pytest.raises(UserError, match="cannot be imported"):
        load_backend("no_such_module_anywhere:Thing")
    sys.modules.pop("own_regions_backend")


def test_unknown_and_incomplete_backends() -> None:
    with pytest.raises(UserError, match="did you mean 'annotations'"):
        load_backend("anotations")
    with pytest.raises(UserError, match="--annotations FILE"):
        load_backend("annotations", RegionOptions())
    with pytest.raises(UserError, match="did you mean 'annotations'"):
        check_backend("anotations", RegionOptions())
