"""Nouns that name people of some kind, for labels that know only persons. Lemmas in lower case."""

from __future__ import annotations

from mfpo.preferences.lexicon.invisible import words

PEOPLE = words(
    """
    adult artist athlete audience baby baker bartender bicyclist biker boy bride brother businessman
    businesswoman bystander carpenter chef child clerk cook couple cowboy crew crowd customer cyclist dad
    dancer daughter doctor driver elder family farmer father female fielder firefighter fireman fisherman
    friend gentleman girl goalie golfer grandfather grandmother groom guest guy hiker human husband
    individual infant jockey jogger judge kid kiteboarder lady lifeguard male man mechanic mom mother
    motorcyclist mum musician nurse officer onlooker paramedic parent passenger passerby pedestrian
    performer person photographer pilot player police policeman policewoman presenter priest referee rider
    sailor scientist seller shopper singer sister skateboarder skater skier snowboarder soldier son
    spectator staff student surfer swimmer teacher teen teenager toddler tourist traveler traveller umpire
    vendor waiter waitress wife woman worker
    """
)
"""Left out are words that name a thing as often: a ceiling fan, speakers, a table runner, a coach."""

PEOPLE_ALONE = words("batter catcher pitcher")
"""People only where nothing but an article or a number stands beside the word: there are pitchers of water
and cake batter."""

DETERMINERS = words(
    "a an another five four her his its my one our several some that the their these this those three two"
)

DEVICES = words(
    """
    audio bluray cassette cd disc disk dvd laserdisc media mp3 mp4 music ray record stereo tape vcr vhs video
    vinyl
    """
)
"""What comes before "player" where that is a thing."""
