"""Image pairs through the fp32 engine: what quantisation takes its ranges from."""
