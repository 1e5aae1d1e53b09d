"""The families of networks, in one file each. `base` and `definition` say what a family consists of."""
