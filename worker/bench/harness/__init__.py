"""Tools shared by the benchmarks: child processes, pinning, CPU and memory use, machine facts, plot style."""
