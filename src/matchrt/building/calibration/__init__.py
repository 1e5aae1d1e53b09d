"""Calibration: image pairs are run through the fp32 engine, and quantization takes its ranges from the results."""
