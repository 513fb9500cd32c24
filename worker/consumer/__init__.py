"""Process 2, the Celery parent: receives chunk messages, renews leases and watches the model process.

The modules are Celery bootsteps and the app that registers them. None of them loads OpenVINO, because this process
forks.
"""
