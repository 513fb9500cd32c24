"""The ledger: jobs, chunks and outcomes in Redis.

jobs         what the producer and readers do with a job: claim, create, seal, cancel, pause, retry, restore, read
chunks       what a worker does with a chunk: start it, record outcomes, release it
backlog      what the steward does with all jobs that have not ended: publish, find lost chunks, close
fleet        live worker processes and what they run
leadership   one process of the fleet per role
  -> connection (one pool per process, the Lua scripts in `lua/`, Redis errors translated)
"""
