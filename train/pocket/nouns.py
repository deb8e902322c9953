"""What pocket can be asked to draw: Unicode emoji names, and the plain words a person says for them.

One drawing a plain word: where Unicode has both "cat face" and "cat", the simpler picture takes the word and the other is left out, since a
small model that learns two pictures for one word draws the mean of both.
"""

import re

# `name`, `name: synonyms` where the Unicode name is the plain word, `name = words` where it is not; the likeliest word first
TABLE = """
grinning face: smiley, happy face
smiling face with smiling eyes = smiling face, smile, face
beaming face with smiling eyes: grin
face with tears of joy = laughing face
smiling face with sunglasses = face with sunglasses, cool face
smiling face with heart-eyes = face with heart eyes, face in love
face blowing a kiss = kissing face, face blowing a kiss
winking face: wink
face with tongue: face with tongue out
thinking face: thinking
neutral face: bored face
sleeping face: sleepy face
crying face: sad face
loudly crying face: sobbing face
enraged face = angry face, enraged face
astonished face = surprised face, astonished face
face with medical mask = face with a mask
nerd face: nerd
cowboy hat face = cowboy
smiling face with halo = angel face, angel, face with a halo
smiling face with horns = devil face, devil, face with horns
clown face = clown, clown face
skull: skeleton
pile of poo = poop
ghost
alien
alien monster: monster, space invader
robot: robot face
see-no-evil monkey = monkey covering its eyes, see-no-evil monkey
red heart = heart, love
broken heart
heart with arrow
fire: flame
star = star, yellow star
glowing star = shining star, glowing star
sparkles
collision = explosion, boom, collision
droplet = drop of water, water drop, drop
water wave = wave, sea, water wave
speech balloon = speech bubble, speech balloon
thumbs up
waving hand = hand, waving hand
raised fist = fist, raised fist
flexed biceps = muscle, strong arm, flexed biceps
victory hand
ear
nose
eye
mouth: lips
tongue
brain
tooth
bone
footprints
baby
boy
girl
man
woman
old man: grandfather
old woman: grandmother
Santa Claus: santa
princess
mermaid
monkey face = monkey, monkey face
gorilla: ape
dog face = dog, puppy, dog face
poodle
wolf
fox
raccoon
cat face = cat, kitten, cat face
lion
tiger face = tiger, tiger face
horse face = horse, pony, horse face
unicorn
zebra
deer
cow face = cow, cow face
pig face = pig, pig face
pig nose
ewe = sheep, lamb, ewe
goat
camel
giraffe
elephant
rhinoceros: rhino
hippopotamus: hippo
mouse face = mouse, mouse face
hamster
rabbit face = rabbit, bunny, rabbit face
hedgehog
bat
bear
polar bear
koala
panda
sloth
kangaroo
paw prints: paws
turkey
chicken: hen
rooster
hatching chick
baby chick: chick
bird
penguin
eagle
duck
swan
owl
flamingo
parrot
frog
crocodile: alligator
turtle: tortoise
lizard
snake
dragon face = dragon, dragon face
sauropod = dinosaur, sauropod
T-Rex: tyrannosaurus
spouting whale = whale, spouting whale
dolphin
seal
fish = fish
tropical fish
blowfish: puffer fish
shark
octopus
spiral shell = shell, seashell, spiral shell
crab
lobster
shrimp
squid
snail
butterfly
bug = caterpillar, bug
ant
honeybee = bee, honeybee
lady beetle = ladybug, ladybird, lady beetle
beetle
spider
spider web: cobweb
scorpion
mosquito
bouquet = bunch of flowers, flowers, bouquet
cherry blossom: pink flower
rose
hibiscus
sunflower
blossom = flower, yellow flower, blossom
tulip
seedling = sprout, plant, seedling
potted plant: houseplant
evergreen tree = pine tree, fir tree, evergreen tree
deciduous tree = tree, oak tree, deciduous tree
palm tree: palm
cactus
four leaf clover = clover
maple leaf: autumn leaf
fallen leaf = leaves, fallen leaf
herb = leaf, green leaf, herb
mushroom: toadstool
grapes
melon
watermelon
tangerine = orange, orange fruit, tangerine
lemon
banana
pineapple
mango
red apple = apple
green apple
pear
peach
cherries: cherry
strawberry
blueberries
kiwi fruit: kiwi
tomato
coconut
avocado
eggplant: aubergine
potato
carrot
ear of corn = corn, maize
hot pepper = chili, chili pepper, hot pepper
bell pepper: pepper
cucumber
broccoli
garlic
onion
peanuts: nuts
chestnut: acorn
bread: loaf of bread
croissant
baguette bread = baguette, baguette bread
pretzel
pancakes
waffle
cheese wedge = cheese, cheese wedge
meat on bone = meat
poultry leg = chicken leg, poultry leg
bacon
hamburger: burger
french fries: fries, chips
pizza: slice of pizza
hot dog
sandwich
taco
burrito
egg = egg
cooking = fried egg, frying pan, cooking
pot of food = cooking pot, stew
green salad = salad, green salad
popcorn
canned food = tin can, canned food
rice ball
cooked rice = bowl of rice, rice
steaming bowl = noodles, soup, steaming bowl
spaghetti: pasta
sushi
soft ice cream = ice cream, ice cream cone, soft ice cream
ice cream = bowl of ice cream, ice cream sundae
doughnut: donut
cookie: biscuit
birthday cake = cake, birthday cake
shortcake = slice of cake, shortcake
cupcake: muffin
pie
chocolate bar: chocolate
candy: sweet
lollipop
custard = pudding, custard
honey pot: honey
baby bottle
glass of milk = glass of milk, milk
hot beverage = cup of coffee, coffee, cup of tea, tea
teapot
wine glass = glass of wine, wine glass, wine
cocktail glass = cocktail, cocktail glass
tropical drink = juice, tropical drink
beer mug = beer, mug of beer
cup with straw = soda
fork and knife: cutlery
spoon
kitchen knife = knife, kitchen knife
globe showing Americas = globe, earth, planet earth
compass
snow-capped mountain = mountain, snow-capped mountain
volcano
tent: camping tent
beach with umbrella = beach
desert island = island, desert island
classical building = temple, classical building
house = house, home
office building = building, skyscraper, office building
hospital
factory
castle
church
fountain
sunrise = sunrise, sunset
ferris wheel
circus tent: circus
locomotive = train, steam train, locomotive
bullet train = fast train, bullet train
train = subway train, metro
tram car = tram, tram car
bus
ambulance
fire engine = fire truck, fire engine
police car
taxi: cab
automobile = car, red car, automobile
sport utility vehicle = jeep, van
delivery truck = truck, delivery truck
articulated lorry = lorry, articulated lorry
tractor
racing car = race car, racing car
motorcycle: motorbike
motor scooter: scooter, moped
bicycle = bicycle, bike
skateboard
vertical traffic light = traffic light
stop sign
anchor
ring buoy: lifebuoy
sailboat = boat, sailboat, sailing boat
canoe: rowing boat
speedboat
passenger ship = cruise ship, passenger ship
ship: ocean liner
airplane = airplane, plane, aeroplane
parachute
helicopter
rocket: spaceship
flying saucer = ufo, flying saucer
luggage: suitcase
hourglass done = hourglass, hourglass done
watch: wristwatch
alarm clock = clock, alarm clock
full moon = full moon
crescent moon = moon, crescent moon
sun
sun with face = sun with a face, smiling sun
ringed planet = planet, saturn, ringed planet
shooting star: falling star
cloud
sun behind cloud = sun behind a cloud, partly cloudy sky
cloud with rain = rain, rain cloud
cloud with lightning = thunderstorm, storm
tornado: whirlwind
rainbow
umbrella
high voltage = lightning bolt, lightning
snowflake: snow
snowman without snow = snowman
comet
jack-o-lantern = pumpkin, jack-o-lantern
Christmas tree
fireworks
firecracker: dynamite
balloon
party popper: party
wrapped gift = gift, present, wrapped gift
ribbon
trophy: cup
sports medal: medal
soccer ball: football, ball
basketball
baseball
tennis = tennis ball, tennis
volleyball
american football
bowling
boxing glove
ice skate
bullseye = target, dartboard, bullseye
kite
pool 8 ball = billiard ball
crystal ball
magic wand
video game = game controller, video game
joystick
game die = dice, game die
puzzle piece: puzzle
teddy bear: teddy
artist palette = paint palette, artist palette
yarn = ball of yarn, yarn
glasses: eyeglasses
sunglasses
necktie = tie, necktie
t-shirt: shirt
jeans: trousers, pants
scarf
gloves: mittens
coat: jacket
socks: sock
dress
bikini
handbag: bag, purse
backpack: rucksack
man’s shoe = shoe, brown shoe
running shoe = sneaker, trainer, running shoe
high-heeled shoe = high heel, high-heeled shoe
woman’s boot = boot, woman's boot
crown
top hat = hat, top hat
graduation cap
billed cap = cap, baseball cap, billed cap
woman’s hat = sun hat, woman's hat
military helmet = helmet, military helmet
lipstick
ring = ring, diamond ring
gem stone = diamond, gem, jewel, gem stone
megaphone
bell
musical note: music, note
studio microphone
microphone: mic
headphone = headphones, headphone
radio
saxophone
trumpet
accordion
guitar
musical keyboard = piano, musical keyboard
violin
drum
mobile phone = phone, smartphone, mobile phone
telephone = old telephone, telephone
battery
electric plug: plug
laptop: computer, notebook computer
desktop computer: monitor, screen
keyboard
computer mouse
floppy disk: diskette
optical disk = cd, optical disk
movie camera: film camera
television = television, tv
camera: photo camera
magnifying glass tilted left = magnifying glass
candle
light bulb: lamp, bulb
flashlight: torch
red paper lantern = lantern, paper lantern
closed book = book, red book, closed book
open book
books = stack of books, books
scroll
newspaper
coin: gold coin
money bag = bag of money, money bag
dollar banknote = money, dollar, dollar banknote
credit card
envelope: letter, mail
package = box, parcel, package
postbox = mailbox, postbox
pencil
fountain pen = pen, fountain pen
paintbrush: brush
crayon
briefcase
file folder: folder
calendar
bar chart: chart
pushpin
paperclip
straight ruler = ruler, straight ruler
scissors
wastebasket = trash can, wastebasket
locked = lock, padlock, locked
key
old key
hammer
axe
pick: pickaxe
dagger = dagger
crossed swords = swords, sword, crossed swords
bomb
bow and arrow: bow
shield
carpentry saw = saw, carpentry saw
wrench: spanner
screwdriver
gear: cog
chains: chain
magnet
ladder
test tube
microscope
telescope
syringe
pill: medicine
door
window
bed = bed
chair
toilet
shower
bathtub: bath
broom
basket
bucket: pail
soap
toothbrush
shopping cart
coffin
headstone = gravestone, tombstone, headstone
moai: stone head
warning = warning sign, warning
no entry = no entry sign, no entry
radioactive = radioactive sign, radioactive
recycling symbol = recycling sign, recycling symbol
peace symbol = peace sign, peace symbol
yin yang
check mark: tick
cross mark = red cross, cross
red question mark = question mark
red exclamation mark = exclamation mark
musical notes
red circle = circle, red dot
red square = square
spade suit = spade
club suit = club
chess pawn = pawn, chess pawn
treasure chest
wood = log, wood
rock: stone
nest with eggs = nest
feather
jellyfish
mirror
"""

# Pairs that no recolour and no caption of the training ever names: the tests of recombination (noun by its Unicode name).
UNSEEN = (
    ("red apple", "blue"),
    ("cat face", "purple"),
    ("automobile", "green"),
    ("frog", "red"),
    ("elephant", "pink"),
    ("banana", "blue"),
    ("mushroom", "purple"),
    ("star", "pink"),
    ("dog face", "green"),
    ("deciduous tree", "blue"),
    ("house", "purple"),
    ("sun", "green"),
    ("butterfly", "red"),
    ("pear", "purple"),
    ("umbrella", "orange"),
    ("bear", "blue"),
    ("rose", "blue"),
    ("fish", "purple"),
    ("crown", "green"),
    ("rocket", "pink"),
    ("pig face", "blue"),
    ("duck", "red"),
)


def listed(text: str) -> list[str]:
    """The items of a list written as "a|b|c"."""
    return [item.strip() for item in text.split("|")]


def parse(table: str) -> dict[str, tuple[str, ...]]:
    """Unicode name -> the words for it, the likeliest first. ValueError when a name or a word stands twice."""
    found: dict[str, tuple[str, ...]] = {}
    taken: dict[str, str] = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        name, mark, rest = re.fullmatch(r"([^:=]+?)\s*(?:([:=])\s*(.*))?", line).groups()  # type: ignore[union-attr]
        given = [w.strip() for w in (rest or "").split(",") if w.strip()]
        words = tuple(given if mark == "=" else [name.lower(), *given])
        for word in words:
            if word in taken:
                raise ValueError(f"{word!r} stands for {taken[word]!r} and for {name!r} in the noun table")
            taken[word] = name
        if name in found:
            raise ValueError(f"{name!r} stands twice in the noun table")
        found[name] = words
    return found


NOUNS = parse(TABLE)

# drawn from less often in training (they stay known, but the words a person tries first are learnt first)
RARE_WEIGHT = 0.2
RARE = frozenset(
    listed(
        """beaming face with smiling eyes|face blowing a kiss|face with medical mask|nerd face|cowboy hat face|alien monster|
        see-no-evil monkey|heart with arrow|glowing star|sparkles|collision|speech balloon|victory hand|footprints|nose|tongue|tooth|
        poodle|raccoon|pig nose|goat|camel|rhinoceros|hippopotamus|hamster|hedgehog|sloth|kangaroo|paw prints|turkey|rooster|
        hatching chick|eagle|lizard|T-Rex|seal|blowfish|lobster|shrimp|squid|beetle|scorpion|mosquito|hibiscus|seedling|fallen leaf|
        herb|melon|mango|blueberries|kiwi fruit|coconut|potato|cucumber|garlic|peanuts|chestnut|baguette bread|pretzel|waffle|
        meat on bone|poultry leg|bacon|burrito|taco|canned food|rice ball|steaming bowl|pot of food|green salad|custard|baby bottle|
        glass of milk|teapot|cocktail glass|tropical drink|cup with straw|fork and knife|compass|beach with umbrella|desert island|
        classical building|office building|hospital|factory|fountain|sunrise|circus tent|bullet train|train|tram car|
        sport utility vehicle|articulated lorry|racing car|motor scooter|skateboard|stop sign|ring buoy|canoe|speedboat|
        passenger ship|parachute|luggage|hourglass done|sun with face|comet|shooting star|sun behind cloud|cloud with lightning|
        tornado|firecracker|party popper|ribbon|sports medal|volleyball|american football|bowling|boxing glove|ice skate|pool 8 ball|
        crystal ball|magic wand|joystick|puzzle piece|artist palette|yarn|scarf|gloves|coat|bikini|running shoe|woman’s boot|
        billed cap|woman’s hat|military helmet|lipstick|megaphone|musical notes|studio microphone|radio|saxophone|accordion|keyboard|
        telephone|battery|electric plug|desktop computer|computer mouse|floppy disk|optical disk|movie camera|flashlight|
        red paper lantern|scroll|newspaper|coin|money bag|dollar banknote|credit card|postbox|fountain pen|crayon|briefcase|
        file folder|calendar|bar chart|pushpin|paperclip|straight ruler|wastebasket|old key|pick|dagger|crossed swords|bow and arrow|
        shield|carpentry saw|wrench|screwdriver|gear|chains|test tube|microscope|telescope|syringe|pill|window|shower|soap|toothbrush|
        shopping cart|coffin|headstone|moai|warning|no entry|radioactive|recycling symbol|peace symbol|yin yang|cross mark|
        red question mark|red exclamation mark|red circle|red square|spade suit|club suit|chess pawn|treasure chest|wood|rock|
        nest with eggs|feather|jellyfish|mirror"""
    )
)
