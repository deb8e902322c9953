"""Whether the intervals of paired differences hold as often as they say."""
