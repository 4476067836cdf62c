"""Compile ``abstract_nouns.txt`` from the dictionary files of WordNet 3.0.

    python -m mfpo.preferences.lexicon.compile DICT_FOLDER

WordNet's editors put every sense of a noun in one of 26 files: artifacts, animals, food, ..., acts,
attributes, cognition, time. A noun is abstract here if at most a tenth of its use is in senses that may be
seen. A sense's share of use is its count in WordNet's tagged corpora plus 1/n for the n-th sense, so that
nouns which never occur there have shares as well. Names of places ("Chicago") are written down with them.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from mfpo.preferences.lexicon import ABSTRACT_NOUNS

# Numbers of the lexicographer files (lexnames.5WN) whose senses may be seen: Tops (entity, person, food,
# ...), animal, artifact, body, food, group, location, object, person, phenomenon, plant, shape, substance.
MAY_BE_SEEN = frozenset({3, 5, 6, 8, 13, 14, 15, 17, 18, 19, 20, 25, 27})
LOCATION = 15
LARGEST_SHARE = 0.1

_WORD = re.compile(r"[a-z]+(-[a-z]+)*")


def abstract_nouns(folder: Path) -> set[str]:
    """Nouns of one word, lower case, that name nothing visible in nine uses of ten.

    Args:
        folder: WordNet's ``dict`` folder, with ``index.sense`` and ``data.noun``.
    """
    uses: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in (folder / "index.sense").read_text(encoding="ascii").splitlines():
        key, _, number, count = line.split()
        lemma, _, rest = key.partition("%")
        kind, file = rest.split(":")[:2]
        if kind == "1" and _WORD.fullmatch(lemma):
            uses[lemma].append((int(file), int(count) + 1 / int(number)))
    places = _place_names(folder)
    return {
        lemma
        for lemma, senses in uses.items()
        if _share(senses, MAY_BE_SEEN - {LOCATION} if lemma in places else MAY_BE_SEEN) <= LARGEST_SHARE
    }


def _share(senses: list[tuple[int, float]], files: frozenset[int]) -> float:
    return sum(use for file, use in senses if file in files) / sum(use for _, use in senses)


def _place_names(folder: Path) -> set[str]:
    """Lower-cased proper names of one word among the locations."""
    names: set[str] = set()
    for line in (folder / "data.noun").read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        if int(fields[1]) == LOCATION:
            names.update(word.lower() for word in words if word[0].isupper())
    return {name for name in names if _WORD.fullmatch(name)}


def main() -> None:
    """Write the list into the package, under WordNet's licence, which stands at the top of its files."""
    folder = Path(sys.argv[1])
    lines = (folder / "data.noun").read_text(encoding="ascii").splitlines()
    notice = [f"# {line[4:].strip()}".rstrip() for line in lines if line.startswith("  ")]
    head = ["# Made from WordNet 3.0 by mfpo.preferences.lexicon.compile; do not edit.", "#", *notice]
    text = "\n".join([*head, *sorted(abstract_nouns(folder))]) + "\n"
    ABSTRACT_NOUNS.write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
