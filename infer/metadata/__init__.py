"""What an image's metadata says of how it was made, whichever program wrote it: one file a program, one result."""
