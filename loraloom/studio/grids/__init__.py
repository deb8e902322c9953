"""The section Grids: finished and live grids, a builder of new ones, votes, rankings, and the choice of a run's checkpoint.

listing.py    the grids below the Studio's folders, newest first
viewing.py    one grid in the report's own viewer
building.py   the settings of a grid as a page edits them, and the words of the command
voting.py     sessions of blind pairs, rankings
choosing.py   a run's checkpoints drawn, voted on, and the winner under the alias `best`
jobs.py       the command lines that go into the queue
routes.py     what pages ask
"""
