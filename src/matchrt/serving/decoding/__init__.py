"""Decodes strangers' image files in processes of their own, which end when an image takes too long."""
