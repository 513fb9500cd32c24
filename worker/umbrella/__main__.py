"""Run `maskmill` as `python -m worker.umbrella`, for use when the console script is not on PATH."""

from worker.umbrella.commands import main

main()
