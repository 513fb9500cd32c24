"""What operators see: metrics, log lines and their events, and the time each stage of an image takes."""
