"""Dense registration of fingerprints, started from LoFTR's transformer: see README.md."""
