"""The self-test of an engine: a made pair of images, what the fp32 graph answers, and what the engine answers here."""
