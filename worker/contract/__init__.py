"""The contract between both sides. Imports point here: `producer -> worker.contract <- worker`.

`queue` (Celery, kombu) imports `ledger` (Redis) and `storage` (S3, boto3); all three import the modules of this folder:
errors, settings, messages, options and names. Those do no I/O, except that `settings` reads the environment and files,
`console` prints, and `tracing` sends spans.
"""
