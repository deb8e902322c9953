"""Captions read from files, and made into the prompts of a step: tags shuffled and dropped, alternatives chosen, variants drawn."""
