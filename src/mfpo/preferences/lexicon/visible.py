"""Nouns of visible things, of parts of bodies, and of what a picture is set in. Lemmas in lower case."""

from __future__ import annotations

from mfpo.preferences.lexicon.invisible import words

# Parts of people and animals. Their region lies inside the region of what they belong to, whose name stands
# in the text as a rule, and detectors asked for them give all of them or the whole. Ambiguous names that
# are things in other texts ("trunk", "horn", "palm", "shell") are not here.
PARTS = words(
    """
    head face forehead cheek chin jaw mouth lip tongue tooth nose nostril snout muzzle eye eyebrow eyelash
    eyelid ear hair hairline hairstyle haircut bangs ponytail braid beard mustache moustache goatee stubble
    neck throat shoulder arm forearm elbow wrist hand finger thumb fingertip fingernail fist knuckle chest
    breast torso waist hip belly stomach tummy abdomen navel buttock lap leg thigh knee shin ankle
    foot heel toe toenail body skin flesh muscle wrinkle freckle dimple limb complexion physique
    paw claw hoof tail mane fur whisker beak feather plumage fin antler tusk udder armpit nape scalp brow
    """
)

# What surrounds the things: the "stuff" of COCO-Stuff (sky, ground, floor, wall, ceiling, water, ground
# cover) as far as it has no shape of its own, rooms, and kinds of places.
_GROUNDS = words(
    """
    sky skyline horizon heaven cloud fog mist haze rain sunlight sunshine moonlight sunset sunrise sunbeam
    shadow reflection glow glare ground floor flooring wall ceiling soil dirt mud sand gravel dust grass
    turf lawn snow ice water sea ocean bay shore shoreline coast coastline seashore waterfront riverbank
    seaside beach terrain land landscape cityscape seascape surface field meadow pasture prairie savanna
    savannah desert wilderness countryside slope greenery foliage vegetation underwater road roadway
    roadside street sidewalk pavement pathway alley alleyway lane avenue boulevard highway freeway driveway
    intersection crossroads curb kerb asphalt tarmac runway track railroad floorboard hardwood tile tiling
    wallpaper
    """
)
_PLACES = words(
    """
    room kitchen bathroom restroom bedroom livingroom hallway hall corridor lobby foyer entryway
    basement attic cellar workshop studio classroom cubicle workspace workplace laboratory lab gymnasium gym
    ballroom auditorium cafeteria canteen pantry nursery condo household backyard yard courtyard patio
    garden park playground campground campsite plaza square city town village neighborhood neighbourhood
    suburb downtown metropolis district junction rink court ballpark pitch skatepark forest
    woods woodland jungle rainforest orchard vineyard farmland farmyard ranch plantation zoo enclosure
    habitat campus clinic marketplace fair fairground festival carnival airport harbor harbour marina port
    terminal venue showroom resort area space zone corner edge
    """
)
SETTINGS = _GROUNDS | _PLACES

# Buildings and other places that are things when they are looked at from outside ("a small shop with a red
# sign"), and settings when something is in them ("people in a shop").
ENTERED = words(
    """
    apartment home school hospital hotel motel museum gallery mall supermarket market restaurant cafe café
    diner pub bar bakery store shop pharmacy warehouse factory garage library stadium arena station farm
    aquarium office university college barn church house building cathedral temple mosque tent cabin tower
    castle lounge shade
    """
)
# Words after which a place is where something is, not what is seen.
ENTERING = words("in at inside into within through throughout")

# Things whose names WordNet has under communication, events, acts, possessions, measures or states.
SEEN = words(
    """
    ad advert advertisement artwork award banknote belonging bible bill bonfire brochure buoy calendar
    campfire cartoon cash certificate check cheque coin crossword dictionary diploma dollar droplet
    encyclopedia exhibit explosion fire flame flashcard gift goal graph handwriting inscription invoice
    journal labrador leftover letter lettering licence license list logo medal mesh money monogram note
    notice novel page pamphlet passport pearl pennant penny permit placard postcard present prize procession
    racket receipt ripple scar signal signature splash spreadsheet step stitching stoplight symbol tag text
    ticket vacuum washing wave word wound wreck writing
    """
)

# Names of colours that are also things. As singulars without an article those of the first list can only be
# the colour ("in orange", but "an orange", "oranges"); those of the second are substances as often, and
# count as colours after "in" or beside another colour.
COLOUR_OR_FRUIT = words(
    """
    orange peach plum lime lemon olive rose violet lilac chestnut apricot tangerine cherry raspberry
    strawberry eggplant aubergine pumpkin pistachio fuchsia amber ruby emerald sapphire
    """
)
COLOUR_OR_SUBSTANCE = words(
    """
    cream chocolate wine gold silver copper bronze mint mustard salmon coral caramel coffee honey cinnamon
    lavender sand rust slate vanilla mahogany charcoal
    """
)
COLOURS = words(
    """
    black white red green blue yellow brown gray grey purple pink orange beige tan navy teal turquoise maroon
    burgundy cyan magenta ivory khaki crimson scarlet indigo aqua azure mauve ochre sepia
    """
)
SHADES = words("bright dark light pale deep soft vivid pastel rich muted warm burnt neon fluorescent dusty")

# Words that name a thing with an article or in the plural only: games that are also balls ("playing
# baseball", "a baseball"), and states ("in line", "on display").
THING_WITH_ARTICLE = words(
    """
    baseball basketball football volleyball softball soccer frisbee cricket snowboard skateboard rugby
    hockey polo bowling line display sight stage duty stock season focus call chess checkers poker light
    """
)
# Substances that are pieces of it, too: "made of glass", but "a glass".
SUBSTANCES = words(
    """
    gold silver copper bronze stone glass paper wood iron brick clay rock bamboo straw oak pine cardboard tin
    """
)

# Names of two words whose second is an abstract noun, or is often taken for a verb by taggers.
COMPOUNDS = frozenset(
    (first, second)
    for second, firsts in {
        "can": "trash garbage rubbish waste recycling soda beer tin watering spray gas oil paint aluminum",
        "control": "remote",
        "escape": "fire",
        "extinguisher": "fire",
        "rack": "towel coat bike bicycle dish shoe wine luggage roof hat drying magazine spice",
        "bear": "teddy polar grizzly brown black panda",
        "feeder": "bird",
        "railing": "metal iron bridge wooden stair balcony",
        "case": "guitar violin display glass pencil suit brief pillow book phone",
        "place": "fire",
    }.items()
    for first in firsts.split()
)

DETERMINERS = words(
    """
    a an the this that these those each every another one two three four five six seven eight nine ten some
    any no either his her its their my our your 's \u2019s
    """
)
