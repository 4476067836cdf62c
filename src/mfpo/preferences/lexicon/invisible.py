"""Words that name no visible thing: what keyword candidates must not be headed by.

The lists hold lemmas in lower case. A word that names a thing in one sense and none in another ("light",
"frame") stays a candidate unless the sense can be told from its neighbours. What descriptions of pictures
speak of is written down here by hand; WordNet's abstract nouns come on top of it (``abstract_nouns.txt``).
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


# In spaCy's stop list, yet part of the names of things: "top hat", "side table", "empty plate", "name tag".
CONTENT_WORDS = words("back bottom empty front full name show side top")

# Adjectives that count, compare or point without describing; they end a phrase as stop words do.
VAGUE_ADJECTIVES = words(
    """
    additional apparent assorted available certain corresponding countless different distinct diverse entire
    exact following general individual innumerable main multiple nearby next noticeable notable numerous
    other overall particular possible potential present previous primary prominent same scattered second
    secondary separate several similar single specific sufficient total typical unidentified unspecified
    usual various varied varying visible whole
    """
)

# Nouns that are no thing one could point at, whatever stands before them.
INVISIBLE_NOUNS = words(
    """
    image picture photo photograph photography snapshot shot depiction portrayal illustration rendering
    composition scene scenery view viewpoint viewer perspective angle panorama vantage close-up closeup
    overview glimpse background foreground backdrop midground side left right middle center centre left-hand
    right-hand rear interior exterior inside outside vicinity proximity distance direction position location
    place placement spot region portion part section half rest remainder majority minority end beginning
    north south east west indoors outdoors mid-air midair air height width length depth size shape form
    color colour hue tone tint coloring colouring black white red green blue yellow brown gray grey purple
    pink beige teal turquoise maroon burgundy cyan magenta pattern texture style design theme type kind sort
    variety assortment selection range mixture mix combination amount quantity lot plenty pair dozen hundred
    thousand million multitude abundance handful bit detail element feature aspect attribute characteristic
    quality property thing something anything everything nothing object item stuff subject atmosphere
    ambiance ambience mood feeling feel vibe sense emotion impression appearance look aesthetic beauty charm
    elegance simplicity complexity comfort warmth coziness cosiness calm tranquility tranquillity serenity
    peace harmony balance contrast brightness darkness clarity visibility sharpness blur focus attention
    emphasis interest importance significance purpose function intention intent meaning context information
    evidence indication hint suggestion clue fact truth reality case example instance possibility
    probability likelihood chance opportunity choice option idea concept topic story narrative question
    answer reason cause result effect impact influence conclusion description caption activity action act
    event occasion situation condition state status circumstance moment time instant minute hour day night
    morning noon afternoon evening dusk dawn midday midnight daytime nighttime today tonight week weekend
    month year decade century era age season summer winter autumn period past future weather climate
    temperature heat cold wind breeze daylight lighting illumination world country nation environment
    setting surrounding surroundings arrangement organization organisation layout order alignment symmetry
    spacing orientation configuration addition absence presence existence lack need use usage way manner
    method process procedure approach technique movement motion speed pace progress stillness pose posture
    stance gesture gaze stare glance expression smile flight turn trick stunt conversation discussion
    interaction communication connection relationship relation bond engagement life love joy fun happiness
    excitement enjoyment enthusiasm entertainment relaxation leisure pleasure pride sadness anger fear
    surprise curiosity anticipation concentration determination effort attempt ability skill experience
    knowledge memory adventure trip journey vacation holiday travel visit work job task role duty business
    company trade service care maintenance repair competition contest tournament championship practice
    training performance celebration gathering meeting ceremony birthday title term degree extent scale
    proportion percent percentage average maximum minimum total sum difference similarity comparison
    variation change damage problem issue difficulty danger risk safety security culture tradition history
    heritage nature trend fashion taste smell scent sound noise music silence help support favor favour
    advantage benefit concern well-being wellbeing health grandeur privacy freedom independence creativity
    diversity productivity efficiency reputation responsibility requirement recommendation precaution
    expectation preference behavior behaviour personality identity message loneliness other one anyone
    everyone someone nobody everybody somebody anybody none both whole overall up front material substance
    content route destination access source transportation transport protection storage solution obstacle
    hindrance consequence aftermath circulation population community society government industry genre media
    technology internet software diet protein vitamin mineral nutrient carbohydrate rarity site unit system
    network profile habit route lifestyle priority topic midst outline contour curvature arrangement set-up
    setup presentation match leather plastic metal fabric cotton wool steel aluminum aluminium linen silk
    satin velvet denim polyester nylon concrete marble granite ceramic porcelain chrome brass rubber vinyl
    suede wicker navy tan ivory khaki crimson scarlet indigo aqua azure mauve ochre sepia taupe being
    solitude purchase break measure aviation date pm am being
    """
)

# Nouns that place, measure or group other things when they stand alone ("the top", "a group of people"), but
# name a thing behind another noun ("tank top", "tea set", "board game").
INVISIBLE_ALONE = words(
    """
    top bottom front back tip row line layer group set series collection cluster bunch batch
    piece member point level grouping lineup line-up gap name game play
    """
)

# Nouns that count or measure before "of" and are a thing elsewhere ("a couple of dogs", "a couple on a
# bench"; "a slice of pizza"). What holds a thing ("a bowl of soup") is a thing itself.
QUANTITIES = words(
    """
    couple number load ton touch trace body array slice piece chunk pile stack heap bunch bundle flock herd
    swarm school crowd string line cluster sheet block drop splash dash wave sea layer strip patch
    """
)
