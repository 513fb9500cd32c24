"""What operators observe: metrics, log lines and their events, and the time of each stage of an image."""
