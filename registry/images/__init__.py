"""Images as what compares them reads them: small copies, perceptual hashes."""
