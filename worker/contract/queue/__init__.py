"""The queue: the Celery app, admission of messages, and publishing of chunks. No other room imports kombu."""
