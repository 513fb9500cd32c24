"""Process 1, the supervisor: owns the cores of a node and starts all other processes."""
