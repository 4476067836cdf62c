"""What nouns name where they stand: things, parts of bodies, settings, or nothing that can be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.preferences.candidates import find_candidates
from mfpo.preferences.lexicon import compile as wordnet
from mfpo.preferences.lexicon import role
from mfpo.preferences.tagging import load_tagger
from mfpo.preferences.words import read_words
from mfpo.scenes.world import KINDS


def phrases(text: str) -> list[str]:
    return [candidate.text for candidate in find_candidates(text, read_words(load_tagger()(text)))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The woman's left hand rests on the man's shoulder, and her eyes are closed.", ["woman", "man"]),
        ("The cat has green eyes, white fur and a long tail.", ["cat"]),
        ("A hand is holding a phone.", ["phone"]),
        ("A dog's head and a horse head are on the wall.", ["dog", "horse"]),
    ],
)
def test_parts_of_bodies_are_left_to_their_owners(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog lies on the kitchen floor under a blue sky.", ["dog"]),
        ("In the kitchen there's a stove, and the kitchen table is set.", ["stove", "kitchen table"]),
        ("A train is approaching the railroad track in the city.", ["train"]),
        ("People walk along the city street past a dining area.", ["People"]),
        (
            "Mountains, a river, waves and clouds can be seen in the distance.",
            ["Mountains", "river", "waves"],
        ),
    ],
)
def test_settings_are_no_keywords(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The sky above the ocean is beautiful.", ["sky", "ocean"]),
        ("A close-up of a face with blue eyes.", ["face", "blue eyes"]),
    ],
)
def test_parts_and_settings_stand_in_where_no_thing_is_named(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A church with a tall steeple stands on a hill.", ["church", "tall steeple", "hill"]),
        ("People pray in the church.", ["People"]),
        ("The restaurant has a red awning.", ["restaurant", "red awning"]),
        ("A family dined at a restaurant.", ["family"]),
    ],
)
def test_a_building_is_a_thing_from_outside(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He is dressed in navy and cream, with an orange tie.", ["orange tie"]),
        ("An orange and a bowl of oranges are next to a peach.", ["orange", "bowl", "peach"]),
        ("The strawberries are topped with cream.", ["strawberries", "cream"]),
        ("The sunset paints the room in orange and gold, and a lamp is on.", ["lamp"]),
        ("Boats in shades of peach, mint and olive.", ["Boats"]),
        ("The cans of paint are white and cream.", ["cans", "paint"]),
    ],
)
def test_colours_that_are_also_things(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("They are playing frisbee with a dog.", ["dog"]),
        ("A frisbee flies over a dog.", ["frisbee", "dog"]),
        ("A man is playing soccer with a soccer ball.", ["man", "soccer ball"]),
        ("A table made of wood and glass, with two wine glasses on it.", ["table", "wine glasses"]),
        ("A glass stands on a sheet of paper.", ["glass", "paper"]),
        ("A jacket of black leather.", ["jacket"]),
        (
            "A teddy bear and a trash can stand by a remote control.",
            ["teddy bear", "trash can", "remote control"],
        ),
        ("A woman plays a board game and a video game.", ["woman", "board game", "video game"]),
    ],
)
def test_games_substances_and_compounds(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The overall mood is one of nostalgia, and the bustling ambiance adds a touch of vibrancy.",
        "The image conveys professionalism, teamwork, camaraderie, elegance and sportsmanship.",
        "It was taken in July 2019, on a Monday at 5 PM, in the 1950s.",
        "Someone is here, while others, including myself, watch them, and everyone looks at the first one.",
        "It is in Chicago, or in Japan.",
    ],
)
def test_what_cannot_be_seen_leaves_nothing(text: str) -> None:
    assert phrases(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A slice of pizza, a stack of plates and a herd of cows.", ["pizza", "plates", "cows"]),
        ("A crowd watches a flock of birds.", ["crowd", "birds"]),
        ("An individual sits beside several other individuals.", ["individual"]),
        ("The number 23 is on a jersey.", ["jersey"]),
        ("Autumn leaves lie beside three taxis.", ["Autumn leaves", "taxis"]),
    ],
)
def test_numbers_and_measures(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


def test_names_in_other_letters_are_things() -> None:
    text = "The smörgåsbord has crème brûlée, jalapeños, a kougelhopf and a piñata."
    assert phrases(text) == ["smörgåsbord", "crème brûlée", "jalapeños", "kougelhopf", "piñata"]


@pytest.mark.parametrize("name", [name for kind in KINDS.values() for name in kind.names])
def test_objects_of_the_scene_world_are_things(name: str) -> None:
    article = "an" if name[0] in "aeiou" else "a"
    assert phrases(f"In the kitchen there is {article} red {name} on the left.") == [f"red {name}"]


def test_lists_are_asked_before_wordnet() -> None:
    assert role("letter", "letter") == "thing"  # WordNet has it under communication
    assert role("happiness", "happiness") == "invisible"
    assert role("wings", "wing") == "thing"  # "wings" has a sense of its own there
    assert role("kougelhopf", "kougelhopf") == "thing"


def test_abstract_nouns_are_read_off_wordnets_files(tmp_path: Path) -> None:
    # Senses: act (04) with 9 uses and artifact (06) with none, the second of two: 0.5 of 10.5 may be seen.
    senses = ["move%1:04:00:: 1 1 9", "move%1:06:00:: 2 2 0", "cup%1:06:00:: 3 1 5", "cup%1:23:00:: 4 2 9"]
    senses += ["run%2:38:00:: 5 1 9", "oslo%1:15:00:: 6 1 0", "bank%1:15:00:: 7 1 0"]
    (tmp_path / "index.sense").write_text("\n".join(senses) + "\n")
    (tmp_path / "data.noun").write_text(
        "  1 a licence\n00000006 15 n 01 Oslo 0 000 | a city\n00000007 15 n 01 bank 0 000 | a slope\n"
    )
    assert wordnet.abstract_nouns(tmp_path) == {"move", "oslo"}
