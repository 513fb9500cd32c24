"""Help from the operating system: child processes that end with their parent, wake-ups, file locks."""
