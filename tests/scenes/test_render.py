from __future__ import annotations

import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mfpo.scenes.examples import COLOUR_INDEX, KIND_INDEX, draw_examples
from mfpo.scenes.render import draw
from mfpo.scenes.world import sample_scene, sample_scenes


def test_masks_are_exactly_where_the_picture_changes() -> None:
    scene = sample_scene("validation", 3)
    whole = draw(scene)
    for item in scene.objects:
        without = draw(scene.without(item.kind))
        changed = (np.asarray(whole.image) != np.asarray(without.image)).any(-1)
        mask = whole.masks[item.kind]
        assert mask.any()
        # A few pixels of an object may have the colour of what is behind; its soft shadow lies outside the
        # mask.
        assert changed[mask].mean() > 0.97


def test_masks_do_not_overlap() -> None:
    for scene in sample_scenes("validation", 30):
        assert np.sum(list(draw(scene).masks.values()), axis=0).max() == 1


def test_drawing_is_deterministic() -> None:
    scene = sample_scene("test", 5)
    assert draw(scene).png() == draw(scene).png()


def test_examples_hold_what_the_image_processor_makes() -> None:
    scenes = sample_scenes("validation", 6)
    examples = draw_examples(scenes, 192, 96, 16, num_workers=1)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96})
    for index, scene in enumerate(scenes):
        made = processor(
            images=[draw(scene).image], do_rescale=False, do_normalize=False, return_tensors="np"
        )
        np.testing.assert_array_equal(np.asarray(made["pixel_values"][0]), examples.pixels[index])


def test_example_labels_agree_with_the_scene() -> None:
    scenes = sample_scenes("validation", 6)
    examples = draw_examples(scenes, 192, 96, 16, num_workers=1)
    for index, scene in enumerate(scenes):
        present = {KIND_INDEX[item.kind]: COLOUR_INDEX[item.colour] for item in scene.objects}
        colours = examples.colours[index]
        assert {k: int(c) for k, c in enumerate(colours) if c >= 0} == present
        assert set(np.unique(examples.labels[index])) - {0} == {1 + kind for kind in present}
        area = (examples.labels[index] > 0).mean()
        np.testing.assert_allclose(examples.covers[index].sum() / 36, area, rtol=1e-5)


def test_number_of_workers_changes_nothing() -> None:
    scenes = sample_scenes("validation", 4)
    one, two = (draw_examples(scenes, 96, 48, 16, num_workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one.pixels, two.pixels)


def test_pictures_are_rgb_of_the_asked_size() -> None:
    image = draw(sample_scene("test", 0), 128).image
    assert isinstance(image, Image.Image) and image.mode == "RGB" and image.size == (128, 128)
