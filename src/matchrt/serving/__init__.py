"""Engines behind HTTP and gRPC: the Open Inference Protocol, one friendly endpoint, a page. Sits on the runtime."""
