"""What both sides agree on. Arrows point here: `producer -> worker.contract <- worker`.

`names` and `errors` import nothing of ours; `messages` and `settings` stand on them; `objects` is the only user
of boto3, `broker` the only maker of a Celery app, `ledger` the only user of Redis commands.
"""
