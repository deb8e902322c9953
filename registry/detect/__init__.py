"""From a path to a Record: kind, family and variant of a model file, with evidence, from headers and configs alone."""
