"""Tools of all benchmarks: child processes, pinning, CPU and memory use, machine facts, plots."""
