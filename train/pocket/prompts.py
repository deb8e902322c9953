"""What pocket is judged by, written before its training ended: no prompt was chosen after looking at a picture."""

from train.pocket.nouns import listed

# what a stranger would try first; guidance 4, 20 steps, no style word
PLAIN = listed(
    "an apple|a banana|a strawberry|a carrot|a pizza|a hamburger|a cake|an ice cream|a cup of coffee|a cat|a dog|a horse|a pig|"
    "a rabbit|a bear|"
    "an elephant|a penguin|an owl|a frog|a fish|a butterfly|a bee|a car|a bus|a bicycle|an airplane|a boat|a rocket|a house|"
    "a tree|a flower|"
    "the sun|the moon|a star|a heart|a smiling face|a ghost|an umbrella|a guitar|a key"
)
# (noun, colour) pairs that no training caption named and no training picture showed so; all stand in nouns.UNSEEN
RECOMBINED = listed("a blue apple|a purple cat|a green car|a red frog|a pink elephant|a blue banana|a purple mushroom|a pink star")
# the same nouns in every style
STYLED = listed("an apple|a grinning face|a cat|a heart|a car|a rocket|a frog|a sunflower|a birthday cake|a penguin|a house|a guitar")
GROUNDS = listed(
    "a cat on a blue background|a car on a yellow background|a star on a black background|a penguin on a pink background|"
    "a frog on a light blue background|an apple on a gray background|a rocket on a dark blue background|"
    "a rabbit on a light green background"
)
# a word the base does not know, in the place of a LoRA's trigger
UNKNOWN = listed("sks style, a cat|bavuto style, a house|a rocket, zxr style|ink drawing of a frog|qlm, an apple|a car in voktu style")
SEED, STEPS, GUIDANCE = 7, 20, 4.0
