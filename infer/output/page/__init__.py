"""The report's page: its images, its data, what it gets while a grid is drawn, and the copy that holds all in one file."""
