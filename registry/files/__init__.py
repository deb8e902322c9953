"""Locks between processes, unfinished files and their leftovers, and writes that a disk refuses."""
