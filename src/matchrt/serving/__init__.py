"""Engines behind HTTP and gRPC: the Open Inference Protocol, a simple endpoint for two images, and a page."""
