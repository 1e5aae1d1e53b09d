"""Image files and arrays to uint8 pixels: one file for each subject. Callers use `runtime.image`."""
