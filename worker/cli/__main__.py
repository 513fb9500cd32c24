"""Run `worker` as `python -m worker.cli`, for use when the console script is not on PATH."""

from worker.cli import main

main()
