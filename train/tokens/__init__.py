"""New tokens: vectors of the text encoders that are trained for them, checked, held, saved and proven."""
