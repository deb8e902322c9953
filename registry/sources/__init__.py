"""Where models come from when they are not on this machine yet: the hub, an address on the web."""
