"""The queue: the Celery app, admission of messages, and publishing chunks. The only users of kombu."""
