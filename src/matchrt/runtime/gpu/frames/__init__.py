"""Images of any size and layout on the GPU: colour conversion, resize and padding in front of the engine."""
