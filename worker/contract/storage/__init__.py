"""S3: the client and the objects of a job (manifest parts, outcome log, job summary). No other room imports boto3."""
