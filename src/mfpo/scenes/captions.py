"""What is said about a scene: captions, questions and their answers, and reading a caption back.

A caption is planned before it is worded: a [`Plan`] is an opener and an ordered list of mentions, [`realise`]
words it and [`parse_plan`] reads it back. Correcting a caption means correcting its plan
([`mfpo.scenes.corrections`]), so a correction keeps the wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpo.scenes.world import COLOURS, CONTEXTS, KINDS, POSITIONS, Position, Scene, SceneObject

DESCRIBE_PROMPTS = (
    "Describe the image.",
    "Describe this picture in detail.",
    "What do you see in this picture?",
    "What is shown in the image?",
    "Please describe the scene.",
)
# Wording before and after the list of objects; {context} is the place.
OPENERS = (
    ("A {context} with ", "."),
    ("This is a {context} with ", "."),
    ("The picture shows a {context} with ", "."),
    ("In this {context}, there is ", "."),
    ("I can see ", " in this {context}."),
)
ADDITIONS = (" There is also ", " You can also see ", " Next to that, there is ")
PHRASES: dict[Position, str] = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
# Share of mentions that give the colour, and the position.
COLOUR_RATE, POSITION_RATE = 0.6, 0.35
# Standard deviation, in places, of the order in which things are named.
ORDER_JITTER = 0.3

_KIND_OF = {name: kind.name for kind in KINDS.values() for name in kind.names}
_NAMES = "|".join(sorted(_KIND_OF, key=len, reverse=True))
_PLURALS = {f"{name}s": kind for name, kind in _KIND_OF.items()} | {
    "knives": "knife",
    "benches": "bench",
    "buses": "bus",
}
_ALL_NAMES = "|".join(sorted([*_KIND_OF, *_PLURALS], key=len, reverse=True))
_POSITION_OF = {phrase: position for position, phrase in PHRASES.items()}
_MENTION = re.compile(
    rf"(?:\b(?P<colour>{'|'.join(COLOURS)})\s+)?\b(?P<name>{_ALL_NAMES})\b"
    rf"(?:\s+(?:is\s+)?(?P<position>{'|'.join(_POSITION_OF)})\b)?",
    re.IGNORECASE,
)
_NOUN_PHRASE = re.compile(
    rf"an? (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<name>{_NAMES})"
    rf"(?: (?P<position>{'|'.join(_POSITION_OF)}))?"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """An object as a text mentions it.

    Attributes:
        kind: Which kind of object, whatever name was used.
        colour: Its colour, if the text gives one.
        position: Its position, if the text gives one.
        name: The name that was used.
        start: First character of the mention, colour included.
        end: One past the last character of the name.
    """

    kind: str
    colour: str | None = None
    position: Position | None = None
    name: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A caption before it is worded.

    Attributes:
        context: The place.
        opener: Index into [`OPENERS`].
        mentions: The objects in the order they are named.
        split: How many of them stand in the first sentence.
        addition: Index into [`ADDITIONS`], the start of the second sentence.
    """

    context: str
    opener: int
    mentions: tuple[Mention, ...]
    split: int
    addition: int = 0


def parse(text: str) -> list[Mention]:
    """All mentions of known kinds in any text, in order, with their character spans; plurals count once."""
    found = []
    for match in _MENTION.finditer(text):
        name = match["name"].lower()
        found.append(
            Mention(
                kind=_KIND_OF.get(name) or _PLURALS[name],
                colour=match["colour"].lower() if match["colour"] else None,
                position=_POSITION_OF[match["position"].lower()] if match["position"] else None,
                name=name,
                start=match.start(),
                end=match.end("name"),
            )
        )
    return found


def mention_of(item: SceneObject, rng: np.random.Generator) -> Mention:
    """A true mention of an object, in varied wording: often with its colour, at times with its position."""
    names = KINDS[item.kind].names
    name = names[0] if len(names) == 1 or rng.random() < 0.75 else names[rng.integers(1, len(names))]
    colour = item.colour if rng.random() < COLOUR_RATE else None
    return Mention(item.kind, colour, item.position if rng.random() < POSITION_RATE else None, name)


def make_plan(context: str, mentions: Sequence[Mention], rng: np.random.Generator) -> Plan:
    """Choose an opener and where the second sentence starts."""
    split = len(mentions)
    if len(mentions) >= 3 and rng.random() < 0.5:
        split = int(rng.integers(2, len(mentions)))
    return Plan(
        context, int(rng.integers(len(OPENERS))), tuple(mentions), split, int(rng.integers(len(ADDITIONS)))
    )


def true_plan(scene: Scene, likely: dict[str, float], rng: np.random.Generator) -> Plan:
    """A complete and correct caption of a scene, what is usual there first.

    Args:
        scene: What is in the picture.
        likely: Probability of each kind in the context.
        rng: Source of randomness.
    """
    return make_plan(scene.context, _in_order([mention_of(o, rng) for o in scene.objects], likely, rng), rng)


def faulty_plan(
    scene: Scene, likely: dict[str, float], rng: np.random.Generator, *, absent_rate: float, drop_rate: float
) -> Plan:
    """A caption as web data has it: likely objects that are not there, present ones left out.

    Args:
        scene: What is in the picture.
        likely: Probability of each kind in the context.
        rng: Source of randomness.
        absent_rate: An absent kind is mentioned with this multiple of its probability.
        drop_rate: A present object is left out with this probability.
    """
    kept = [item for item in scene.objects if rng.random() >= drop_rate] or [scene.objects[0]]
    mentions = [mention_of(item, rng) for item in kept]
    for kind, probability in likely.items():
        if kind not in scene.kinds and rng.random() < absent_rate * probability:
            colour, position = COLOURS[rng.integers(len(COLOURS))], POSITIONS[rng.integers(3)]
            mentions.append(mention_of(SceneObject(kind, colour, position, 0.5, 1.0, 0.2), rng))
    return make_plan(scene.context, _in_order(mentions, likely, rng), rng)


def usualness(kind: str, likely: dict[str, float]) -> int:
    """Place of a kind in the order in which captions name things: 0 for the most usual of the context.

    Kinds that the context does not hold come last.
    """
    order = sorted(likely, key=lambda name: -likely[name])
    return order.index(kind) if kind in likely else len(order)


def _in_order(
    mentions: Sequence[Mention], likely: dict[str, float], rng: np.random.Generator
) -> list[Mention]:
    """Mentions sorted by usualness; neighbours may change places."""
    keys = [usualness(mention.kind, likely) + rng.normal(0, ORDER_JITTER) for mention in mentions]
    return [mentions[i] for i in sorted(range(len(mentions)), key=keys.__getitem__)]


def realise(plan: Plan) -> str:
    """Word a plan."""
    before, after = OPENERS[plan.opener]
    first, second = plan.mentions[: plan.split], plan.mentions[plan.split :]
    text = before.format(context=plan.context) + _listing(first) + after.format(context=plan.context)
    if second:
        text += ADDITIONS[plan.addition] + _listing(second) + "."
    return text


def parse_plan(text: str) -> Plan | None:
    """Read a caption back into its plan; None unless [`realise`] gives exactly this text again."""
    addition, second = 0, ""
    head = text
    for index, start in enumerate(ADDITIONS):
        if start in text:
            head, second = text.split(start, 1)
            addition = index
            break
    for opener, (before, after) in enumerate(OPENERS):
        for context in CONTEXTS:
            start, end = before.format(context=context), after.format(context=context)
            if head.startswith(start) and head.endswith(end):
                first = _mentions_in(head[len(start) : len(head) - len(end)])
                if not first or bool(second) != bool(_mentions_in(second)):
                    return None
                plan = Plan(context, opener, (*first, *_mentions_in(second)), len(first), addition)
                return plan if realise(plan) == text else None
    return None


def existence_question(kind: str) -> str:
    """A yes/no question about an object."""
    return f"Is there {article(kind)} {kind} in the picture?"


def existence_answer(scene: Scene, kind: str) -> str:
    """The true answer to [`existence_question`]."""
    item = scene.find(kind)
    if item is None:
        return f"No, there is no {kind} in the picture."
    return f"Yes, there is {article(item.colour)} {item.colour} {kind} {PHRASES[item.position]}."


def colour_question(kind: str) -> str:
    """A question about an object's colour."""
    return f"What colour is the {kind}?"


def position_question(kind: str) -> str:
    """A question about where an object is."""
    return f"Where is the {kind}?"


def attribute_answer(kind: str, value: str) -> str:
    """The answer to [`colour_question`] (``red``) or [`position_question`] (``on the left``)."""
    return f"The {kind} is {value}."


def article(word: str) -> str:
    """``a`` or ``an``."""
    return "an" if word[0] in "aeiou" else "a"


def _listing(mentions: Sequence[Mention]) -> str:
    phrases = [_phrase(mention) for mention in mentions]
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _phrase(mention: Mention) -> str:
    noun = f"{mention.colour} {mention.name}" if mention.colour else mention.name
    text = f"{article(noun)} {noun}"
    return f"{text} {PHRASES[mention.position]}" if mention.position else text


def _mentions_in(text: str) -> list[Mention]:
    return [
        Mention(
            _KIND_OF[m["name"]],
            m["colour"],
            _POSITION_OF[m["position"]] if m["position"] else None,
            m["name"],
        )
        for m in _NOUN_PHRASE.finditer(text)
    ]
