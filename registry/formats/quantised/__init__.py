"""Files that are quantised already: which of their tensors are codes and scales of which weight."""
