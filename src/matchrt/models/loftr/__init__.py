"""LoFTR: its configuration, network, deployed form and Flax network."""
