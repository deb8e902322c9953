"""Images of a set that show the same: their small copies, and which of these are near."""
