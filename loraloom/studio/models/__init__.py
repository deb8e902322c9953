"""The section Models: the registry as cards and as a table, one model's page, and the models of a dropped file.

routes.py       the addresses
cards.py        a part of a selection, as its cards show it
detail.py       one model: all facts, what its warnings mean, what there is twice
graph.py        its lineage as nodes and lines
images.py       the images of a model: chosen, beside its file, of its run, of grids
grid_images.py  which images of finished grids were drawn with which models
dropped.py      the registered models of a dropped image or model file
jobs.py         commands of the registry as jobs of the queue
page/           what shows it
"""
