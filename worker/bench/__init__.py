"""Measurements: `worker bench ...` (extra `[bench]`).

    cli.bench -> model (what is compared) -> measure (turns, best and median) -> child processes, one per contender
                      └-> machine (what it ran on) -> report (JSON, rows) and plot (PNG)

A contender lives in a process of its own, pinned before it loads anything: its peak memory is its own, no library's
threads meet another's, and contenders take turns, so that what else happens on the machine meets all of them alike.

`bench submit` is apart: submit -> producer.bench.submit (a process for each action), plain_celery -> submit_report.
"""
