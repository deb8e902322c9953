"""Whether the intervals of a ranking hold the planted strengths as often as they say."""
