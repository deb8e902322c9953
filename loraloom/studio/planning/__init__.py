"""Plans as one types: the checks and the plan of a command's settings, in a warm process of its own.

Hydra composes with global state, and a plan may take a second of one core: neither belongs in the threads that answer pages.

    planner.py    starts the process, asks it, and drops questions that a newer one has overtaken
    child.py      that process: the words of a command in, its plan or its faults out
    faults.py     which setting a fault is of
"""
