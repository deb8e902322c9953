"""The section New run: a training from what is there, planned as one types.

sources.py   what a run can begin with: bases that are trained, folders with images, registered sets
settings.py  every setting with its default, meaning and choices, the presets, and the settings of an earlier run
routes.py    the answers; plans come from studio/planning, runs go to the queue
"""
