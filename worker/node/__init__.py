"""Process 1, the supervisor: assigns the cores of a node and starts all other processes."""
