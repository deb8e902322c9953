"""The words of the rules: what is vague, the things that it can be, and what a prompt says of medium, place, light and framing."""

from __future__ import annotations

# what a vague word can be, without an article; nouns that small models draw too
THINGS: dict[str, tuple[str, ...]] = {
    "animal": ("cat", "dog", "horse", "fox", "rabbit", "bear", "lion", "elephant"),
    "pet": ("cat", "dog", "rabbit", "hamster"),
    "bird": ("owl", "parrot", "penguin", "duck", "eagle"),
    "insect": ("butterfly", "bee", "beetle", "ladybug"),
    "monster": ("ghost", "dragon", "robot", "alien"),
    "fruit": ("apple", "banana", "strawberry", "pear", "lemon"),
    "vegetable": ("carrot", "tomato", "cucumber", "ear of corn"),
    "food": ("pizza", "hamburger", "sandwich", "bowl of soup", "birthday cake"),
    "dessert": ("birthday cake", "ice cream", "doughnut", "cookie"),
    "drink": ("cup of coffee", "glass of milk", "cup of tea", "glass of wine"),
    "vehicle": ("car", "bicycle", "bus", "airplane", "sailing boat", "rocket"),
    "plant": ("sunflower", "cactus", "palm tree", "tulip", "potted plant"),
    "flower": ("sunflower", "tulip", "rose", "cherry blossom"),
    "tree": ("palm tree", "pine tree", "oak tree", "cherry tree"),
    "building": ("house", "castle", "church", "lighthouse"),
    "furniture": ("chair", "bed", "sofa", "wooden table"),
    "tool": ("hammer", "wrench", "saw", "axe"),
    "toy": ("teddy bear", "balloon", "kite", "wooden train"),
    "instrument": ("guitar", "violin", "trumpet", "drum"),
    "garment": ("dress", "coat", "shirt", "hat"),
    "weapon": ("sword", "bow and arrow", "axe"),
    "planet": ("planet with rings", "moon", "comet"),
    "celebration": ("birthday cake", "party popper", "wrapped gift", "Christmas tree"),
    "landscape": (
        "mountain lake under a clear sky",
        "beach with palm trees",
        "forest path in autumn",
        "desert with dunes",
    ),
}

# vague word -> the things it can be; words that are also names of exact things are left out
VAGUE: dict[str, str] = {
    **{kind: kind for kind in THINGS if kind not in ("celebration", "planet")},
    "beast": "animal",
    "creature": "animal",
    "bug": "insect",
    "snack": "food",
    "meal": "food",
    "dish": "food",
    "sweet": "dessert",
    "beverage": "drink",
    "scenery": "landscape",
}

# words that may be before a vague word; with any other it is a part of a longer name ("a Christmas tree", "a potted plant")
_ADJECTIVES = (
    "big large small little tiny huge old young new cute sweet happy sad funny angry scary beautiful pretty lovely colorful wild friendly"
    " fluffy furry shiny dark bright fast slow round tall short fat thin strange exotic fresh ripe tasty delicious hot cold warm modern"
    " ancient magical wooden golden silver black white gray grey red orange yellow green blue purple pink brown single lonely"
)
ADJECTIVES = frozenset(_ADJECTIVES.split())

# what follows "something", "anything" -> the things it can be
SOMETHING: dict[str, str] = {
    "to eat": "food",
    "tasty": "food",
    "to snack on": "food",
    "sweet": "dessert",
    "to drink": "drink",
    "healthy": "fruit",
    "to drive": "vehicle",
    "to ride": "vehicle",
    "fast": "vehicle",
    "to wear": "garment",
    "to sit on": "furniture",
    "to play with": "toy",
    "to play": "instrument",
    "musical": "instrument",
    "to fix things with": "tool",
    "useful": "tool",
    "cute": "pet",
    "wild": "animal",
    "alive": "animal",
    "that flies": "bird",
    "scary": "monster",
    "spooky": "monster",
    "green": "plant",
    "beautiful": "flower",
    "pretty": "flower",
    "romantic": "flower",
    "festive": "celebration",
    "to celebrate": "celebration",
    "peaceful": "landscape",
    "calm": "landscape",
    "in space": "planet",
    "to live in": "building",
    "dangerous": "weapon",
}

# signs that a prompt has said something already, and what is said where it has not
MEDIUM = (
    "photo photograph photography painting painted drawing drawn sketch illustration render rendering 3d watercolor watercolour oil ink"
    " anime manga cartoon style engraving logo icon vector sticker emoji sculpture pixel collage poster mosaic film still comic"
)
LIGHT = (
    "light lights lighting lit sunlight sunset sunrise dawn dusk night day glow glowing shadow shadows neon sunny moonlight candle"
    " bright dark backlit noon evening morning"
)
PLACE = "in on at under near beside behind before above below inside outside between among over across background landscape"
FRAMING = "close close-up closeup portrait wide view angle macro full-body centered centred framing profile aerial panorama shot"

MEDIA = (
    "a detailed digital illustration",
    "a sharp photograph",
    "an oil painting with visible brush strokes",
    "a clean watercolor painting",
)
LIGHTS = ("soft morning light", "warm evening light", "even daylight", "light from one side with soft shadows")
PLACES = ("on a plain light background", "in an open green landscape", "before a clear blue sky", "in a tidy bright room")
FRAMINGS = ("centered, seen in full", "seen from the front", "seen at eye level", "filling most of the frame")
