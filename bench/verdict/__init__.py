"""Whether the sentence at the end of a run is the right one: runs staged to fail in known ways."""
