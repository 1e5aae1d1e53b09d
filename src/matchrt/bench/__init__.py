"""Latency, accuracy and comparison of engines. Sits on the runtime."""
