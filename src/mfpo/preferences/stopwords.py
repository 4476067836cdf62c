"""Words that name no visible thing: what keyword candidates must not be headed by.

The lists hold lemmas in lower case. A word that names a thing in one sense and none in another ("orange",
"light", "frame") stays a candidate unless the sense can be told from its neighbours.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# In spaCy's stop list, yet part of the names of things: "top hat", "side table", "empty plate", "name tag".
CONTENT_WORDS = _words("back bottom empty front full name show side top")

# Adjectives that count, compare or point without describing; they end a phrase as stop words do.
VAGUE_ADJECTIVES = _words(
    """
    additional apparent assorted available certain corresponding countless different distinct diverse entire
    exact following general individual innumerable main multiple nearby next noticeable notable numerous
    other overall particular possible potential present previous primary prominent same scattered second
    secondary separate several similar single specific sufficient total typical unidentified unspecified
    usual various varied varying visible whole
    """
)

# Nouns that are no thing one could point at, whatever stands before them.
INVISIBLE_NOUNS = _words(
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
    expectation preference behavior behaviour personality identity message loneliness
    """
)

# Nouns that place, measure or group other things when they stand alone ("the top", "a group of people"), but
# name a thing behind another noun ("tank top", "tea set", "street corner", "board game").
INVISIBLE_ALONE = _words(
    """
    top bottom front back edge corner tip row line layer group set series collection cluster bunch batch
    piece member space area zone point level grouping lineup line-up gap name game match play
    """
)

# Nouns that are a quantity before "of" and a thing elsewhere ("a couple of dogs", "a couple on a bench").
QUANTITIES = _words("couple number load ton touch trace body array")
