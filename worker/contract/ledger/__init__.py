"""The ledger: jobs, chunks and outcomes in Redis. The only users of the Redis client.

jobs, chunks, backlog, fleet, leadership
  -> connection (one pool, the Lua scripts in `lua/`, errors translated)
"""
