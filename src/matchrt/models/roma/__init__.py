"""RoMa and MatchAnything-RoMa: dense matching from a frozen DINOv2 and a VGG19 pyramid. Pure functions of tensors."""
