"""Many pairs: matched by a pool of workers or on a Ray cluster, journalled, and written in the formats of SfM tools."""
