"""Edits of a set on the disk: captions, masks, which images are held out. What was before is kept in the set, so that each can be undone.

operations.py   caption -> caption: replace, tags added, removed, renamed, sorted
entries.py      the images of a set, and the file that each caption comes from
plan.py         what an edit would change
captions.py     plans of edited captions
heldout.py      plans of images that move into heldout/ and back
masks.py        plans of masks
additions.py    plans of new images
changes.py      one change of one file, forwards and backwards
rows.py         the same for rows of metadata.jsonl
journal.py      the edits of a set: made, finished after a kill, undone
"""
