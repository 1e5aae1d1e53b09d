"""EfficientLoFTR."""
