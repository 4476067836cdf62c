"""Nouns that name people of some kind, for labels that know only persons. Lemmas in lower case."""

from __future__ import annotations

from mfpo.preferences.lexicon.invisible import words

PEOPLE = words(
    """
    adult artist athlete audience baby baker bartender batter bicyclist biker boy bride bystander carpenter
    catcher chef child clerk coach cook couple crew crowd customer cyclist dancer diner doctor driver elder
    family fan farmer father female fielder firefighter fireman fisherman friend gentleman girl goalie golfer
    groom guard guest guy hiker infant jockey jogger judge kid kiteboarder lady lifeguard male man mechanic
    mother motorcyclist musician nurse officer onlooker paramedic parent passenger passerby pedestrian
    performer photographer pilot pitcher player police policeman policewoman presenter priest referee rider
    runner sailor scientist seller server shopper singer skateboarder skater skier snowboarder soldier speaker
    spectator staff student surfer swimmer teacher teen teenager toddler tourist traveler traveller umpire
    vendor waiter waitress walker woman worker
    """
)
