"""What pocket can be asked to draw: Unicode emoji names, and the plain words a person says for them.

One drawing a plain word: where Unicode has both "cat face" and "cat", the simpler picture takes the word and the other is left out, since a small
model that learns two pictures for one word draws the mean of both.
"""

# unicode name: plain words, the likeliest first (the Unicode name itself is always a word too)
TABLE = """
grinning face: smiley, happy face
smiling face with smiling eyes: smiling face, smile, face
beaming face with smiling eyes: grin
face with tears of joy: laughing face
smiling face with sunglasses: cool face
smiling face with heart-eyes: face in love
face blowing a kiss: kissing face
winking face: wink
face with tongue: face with tongue out
thinking face: thinking
neutral face: bored face
sleeping face: sleepy face
crying face: sad face
loudly crying face: sobbing face
enraged face: angry face
astonished face: surprised face
face with medical mask: face with a mask
nerd face: nerd
cowboy hat face: cowboy
smiling face with halo: angel
smiling face with horns: devil
clown face: clown
skull: skeleton
pile of poo: poop
ghost:
alien:
alien monster: monster, space invader
robot: robot face
see-no-evil monkey: monkey covering its eyes
red heart: heart, love
broken heart:
heart with arrow:
fire: flame
star: yellow star
glowing star: shining star
sparkles:
collision: explosion, boom
droplet: water drop, drop
water wave: wave, sea
speech balloon: speech bubble
thumbs up:
waving hand: hand
raised fist: fist
flexed biceps: muscle, strong arm
victory hand:
ear:
nose:
eye:
mouth: lips
tongue:
brain:
tooth:
bone:
footprints:
baby:
boy:
girl:
man:
woman:
old man: grandfather
old woman: grandmother
Santa Claus: santa
princess:
mermaid:
monkey face: monkey
gorilla: ape
dog face: dog, puppy
poodle:
wolf:
fox:
raccoon:
cat face: cat, kitten
lion:
tiger face: tiger
horse face: horse, pony
unicorn:
zebra:
deer:
cow face: cow
pig face: pig
pig nose:
ewe: sheep, lamb
goat:
camel:
giraffe:
elephant:
rhinoceros: rhino
hippopotamus: hippo
mouse face: mouse
hamster:
rabbit face: rabbit, bunny
hedgehog:
bat:
bear:
polar bear:
koala:
panda:
sloth:
kangaroo:
paw prints: paws
turkey:
chicken: hen
rooster:
hatching chick:
baby chick: chick
bird:
penguin:
eagle:
duck:
swan:
owl:
flamingo:
parrot:
frog:
crocodile: alligator
turtle: tortoise
lizard:
snake:
dragon face: dragon
sauropod: dinosaur
T-Rex: tyrannosaurus
spouting whale: whale
dolphin:
seal:
fish:
tropical fish:
blowfish: puffer fish
shark:
octopus:
spiral shell: shell, seashell
crab:
lobster:
shrimp:
squid:
snail:
butterfly:
bug: caterpillar
ant:
honeybee: bee
lady beetle: ladybug, ladybird
beetle:
spider:
spider web: cobweb
scorpion:
mosquito:
bouquet: flowers, bunch of flowers
cherry blossom: pink flower
rose:
hibiscus:
sunflower:
blossom: flower, yellow flower
tulip:
seedling: sprout, plant
potted plant: houseplant
evergreen tree: pine tree, fir tree
deciduous tree: tree, oak tree
palm tree: palm
cactus:
four leaf clover: clover
maple leaf: autumn leaf
fallen leaf: leaves
herb: leaf, green leaf
mushroom: toadstool
grapes:
melon:
watermelon:
tangerine: orange fruit, orange
lemon:
banana:
pineapple:
mango:
red apple: apple
green apple:
pear:
peach:
cherries: cherry
strawberry:
blueberries:
kiwi fruit: kiwi
tomato:
coconut:
avocado:
eggplant: aubergine
potato:
carrot:
ear of corn: corn, maize
hot pepper: chili, chili pepper
bell pepper: pepper
cucumber:
broccoli:
garlic:
onion:
peanuts: nuts
chestnut: acorn
bread: loaf of bread
croissant:
baguette bread: baguette
pretzel:
pancakes:
waffle:
cheese wedge: cheese
meat on bone: meat
poultry leg: chicken leg
bacon:
hamburger: burger
french fries: fries, chips
pizza: slice of pizza
hot dog:
sandwich:
taco:
burrito:
egg:
cooking: fried egg, frying pan
pot of food: cooking pot, stew
green salad: salad
popcorn:
canned food: tin can
rice ball:
cooked rice: rice, bowl of rice
steaming bowl: noodles, soup
spaghetti: pasta
sushi:
soft ice cream: ice cream cone
ice cream: bowl of ice cream
doughnut: donut
cookie: biscuit
birthday cake: cake
shortcake: slice of cake
cupcake: muffin
pie:
chocolate bar: chocolate
candy: sweet
lollipop:
custard: pudding
honey pot: honey
baby bottle:
glass of milk: milk
hot beverage: coffee, cup of coffee, cup of tea
teapot:
wine glass: wine, glass of wine
cocktail glass: cocktail
tropical drink: juice
beer mug: beer
cup with straw: soda
fork and knife: cutlery
spoon:
kitchen knife: knife
globe showing Americas: earth, globe, planet earth
compass:
snow-capped mountain: mountain
volcano:
tent: camping tent
beach with umbrella: beach
desert island: island
classical building: temple
house:
office building: building, skyscraper
hospital:
factory:
castle:
church:
fountain:
sunrise: sunset
ferris wheel:
circus tent: circus
locomotive: steam train
bullet train: fast train
train: subway
tram car: tram
bus:
ambulance:
fire engine: fire truck
police car:
taxi: cab
automobile: car, red car
sport utility vehicle: jeep, van
delivery truck: truck
articulated lorry: lorry
tractor:
racing car: race car
motorcycle: motorbike
motor scooter: scooter, moped
bicycle: bike
skateboard:
vertical traffic light: traffic light
stop sign:
anchor:
ring buoy: lifebuoy
sailboat: boat, sailing boat
canoe: rowing boat
speedboat:
passenger ship: cruise ship
ship: ocean liner
airplane: plane, aeroplane
parachute:
helicopter:
rocket: spaceship
flying saucer: ufo
luggage: suitcase
hourglass done: hourglass
watch: wristwatch
alarm clock: clock
full moon: moon
crescent moon:
sun:
sun with face: sun face, smiling sun
ringed planet: planet, saturn
shooting star: falling star
cloud:
sun behind cloud: partly cloudy sky
cloud with rain: rain, rain cloud
cloud with lightning: thunderstorm, storm
tornado: whirlwind
rainbow:
umbrella:
high voltage: lightning, lightning bolt
snowflake: snow
snowman without snow: snowman
comet:
jack-o-lantern: pumpkin
Christmas tree:
fireworks:
firecracker: dynamite
balloon:
party popper: party
wrapped gift: gift, present
ribbon:
trophy: cup
sports medal: medal
soccer ball: football, ball
basketball:
baseball:
tennis: tennis ball
volleyball:
american football:
bowling:
boxing glove:
ice skate:
bullseye: target, dartboard
kite:
pool 8 ball: billiard ball
crystal ball:
magic wand:
video game: game controller
joystick:
game die: dice
puzzle piece: puzzle
teddy bear: teddy
artist palette: paint palette
yarn: ball of yarn
glasses: eyeglasses
sunglasses:
necktie: tie
t-shirt: shirt
jeans: trousers, pants
scarf:
gloves: mittens
coat: jacket
socks: sock
dress:
bikini:
handbag: bag, purse
backpack: rucksack
man’s shoe: shoe
running shoe: sneaker, trainer
high-heeled shoe: high heel
woman’s boot: boot
crown:
top hat: hat
graduation cap:
billed cap: cap, baseball cap
woman’s hat: sun hat
military helmet: helmet
lipstick:
ring: diamond ring
gem stone: diamond, gem, jewel
megaphone:
bell:
musical note: music, note
studio microphone:
microphone: mic
headphone: headphones
radio:
saxophone:
trumpet:
accordion:
guitar:
musical keyboard: piano
violin:
drum:
mobile phone: phone, smartphone
telephone: old telephone
battery:
electric plug: plug
laptop: computer, notebook computer
desktop computer: monitor, screen
keyboard:
computer mouse:
floppy disk: diskette
optical disk: cd
movie camera: film camera
television: tv
camera: photo camera
magnifying glass tilted left: magnifying glass
candle:
light bulb: lamp, bulb
flashlight: torch
red paper lantern: lantern
closed book: book, red book
open book:
books: stack of books
scroll:
newspaper:
coin: gold coin
money bag: bag of money
dollar banknote: money, dollar
credit card:
envelope: letter, mail
package: box, parcel
postbox: mailbox
pencil:
fountain pen: pen
paintbrush: brush
crayon:
briefcase:
file folder: folder
calendar:
bar chart: chart
pushpin:
paperclip:
straight ruler: ruler
scissors:
wastebasket: trash can
locked: lock, padlock
key:
old key:
hammer:
axe:
pick: pickaxe
dagger:
crossed swords: swords, sword
bomb:
bow and arrow: bow
shield:
carpentry saw: saw
wrench: spanner
screwdriver:
gear: cog
chains: chain
magnet:
ladder:
test tube:
microscope:
telescope:
syringe:
pill: medicine
door:
window:
bed: person in bed
chair:
toilet:
shower:
bathtub: bath
broom:
basket:
bucket: pail
soap:
toothbrush:
shopping cart:
coffin:
headstone: gravestone, tombstone
moai: stone head
warning: warning sign
no entry: no entry sign
radioactive: radioactive sign
recycling symbol: recycling sign
peace symbol: peace sign
yin yang:
check mark: tick
cross mark: cross, red cross
red question mark: question mark
red exclamation mark: exclamation mark
musical notes:
red circle: circle, red dot
red square: square
spade suit: spade
club suit: club
chess pawn: pawn
treasure chest:
wood: log
rock: stone
nest with eggs: nest
feather:
jellyfish:
mirror:
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


def parse(table: str) -> dict[str, tuple[str, ...]]:
    """Unicode name -> words, plain ones first. ValueError when a name or a first word stands twice."""
    words: dict[str, tuple[str, ...]] = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        name, _, rest = line.partition(":")
        if name in words:
            raise ValueError(f"{name!r} stands twice in the noun table")
        plain = [w.strip() for w in rest.split(",") if w.strip()]
        words[name] = tuple(dict.fromkeys([*plain, name.lower().replace("’", "'")]))
    return words


NOUNS = parse(TABLE)
