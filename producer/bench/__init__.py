"""Benchmarks of the producer; `worker bench` runs each in a separate process."""
