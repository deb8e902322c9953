"""What block swap takes and saves."""
