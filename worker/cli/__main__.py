"""`python -m worker.cli` is `worker`, for where the console script is not on PATH."""

from worker.cli import main

main()
