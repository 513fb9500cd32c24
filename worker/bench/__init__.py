"""Benchmarks: `worker bench ...` (extra `[bench]`); README.md in this folder has the tables and the commands.

    cli.bench -> model (which networks) -> harness.measure (turns, best and median) -> one child process per contender
                      └-> harness.machine (what it ran on) -> model_report (JSON, tables, plot)

Every benchmark `X` has a module `X`, which measures, and a module `X_report`, a `report.BenchmarkReport`.

A contender runs in its own process, pinned before it loads anything. So its peak memory includes no other network, and
the threads of two libraries never compete. Contenders take turns, so a disturbance of the machine affects all alike.

`bench submit` differs: submit -> producer.bench.submit (one process per action), plain_celery -> submit_report.
"""
