"""Engines in two parts: the features of one image, and the matching of two images' features."""
