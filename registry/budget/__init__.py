"""A memory budget as it is typed, and the cheapest settings that fit it: arithmetic that knows no model."""
