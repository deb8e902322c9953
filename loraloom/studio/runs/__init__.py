"""The section Runs: the queue's jobs and the run folders in one list, a run's own page, runs side by side, sweeps.

folders.py     the run folders below `runs/` of the working folder and the roots, and their state
summary.py     what a row of the list says of a run, read from the small files of its folder
registered.py  the runs of the index, also those of other machines
listing.py     jobs and runs in one list, filtered and paged
curves.py      the charts of a run that goes on: of metrics.jsonl only what was added is read
details.py     all that a run's page shows beside its curves
compare.py     curves over one another, and the settings that differ
sweeps.py      the folders of --multirun
actions.py     what the buttons do, with the command line of each
routes.py      the answers
"""
