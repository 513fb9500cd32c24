"""Benchmarks of the producer, run in child processes by `worker bench`."""
