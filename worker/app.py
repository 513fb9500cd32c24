"""The name that Celery is given: `celery -A worker.app worker`. Nothing imports this module."""

from worker.consumer.app import app

__all__ = ["app"]
