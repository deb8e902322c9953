"""From folders on the disk to rows of the index: walk, match, write, refresh, rebuild."""
