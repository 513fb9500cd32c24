"""Process 3, the model process: turns one chunk message into outputs in S3 and outcomes in the ledger.

process -> chunks -> work_items -> pipeline -> S3
"""
