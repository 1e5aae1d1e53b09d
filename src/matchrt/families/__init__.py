"""Each family of networks in one file; `registry` lists them, `definition` and `base` say what a family is."""
