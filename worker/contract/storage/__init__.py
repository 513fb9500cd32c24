"""S3: the client, and the objects of a job (manifest parts, outcome log, gzip JSON lines)."""
