"""The queue of jobs of one home: command lines that run one after the other, each in a process of its own.

There is no server: whoever adds a job starts it when nothing runs, and each job starts the next one at its end. A job is a folder,
`$LORALOOM_HOME/queue/<id>/`; everything that is said about it is read from there.
"""
