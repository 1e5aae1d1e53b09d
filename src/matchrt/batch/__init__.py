"""Matching many pairs: by a pool of workers or on a Ray cluster, with a journal, into the formats of SfM tools."""
