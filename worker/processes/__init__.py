"""Operating system services: child processes that end with their parent, wake-ups and file locks."""
