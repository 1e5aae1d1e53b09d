"""XoFTR: its configuration, network and deployed form."""
