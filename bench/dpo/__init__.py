"""Whether an adapter that learned from votes wins a new blind vote."""
