"""RoMa v2 in torch (Edstedt et al., 2025)."""
