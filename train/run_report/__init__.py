"""The report of a run: its files read, what they show as plain values, and one HTML file of it."""
