"""The network: which bundle (`bundle`), where it lies (`store`), and running it (`engine`).

Everything but `engine`, `graph` and `runtime` is plain Python and safe to import in any process. Those three import
OpenVINO, which a Celery parent must never do: the set of CPUs that OpenVINO uses is read once and inherited by fork.
"""
