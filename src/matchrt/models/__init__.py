"""What the networks are: pure functions of tensors. No files, no devices, no downloads."""
