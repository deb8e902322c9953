"""What is written: PNG metadata, sheet, report; and an image drawn again from it."""
