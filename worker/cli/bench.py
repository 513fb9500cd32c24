"""`worker bench`: benchmarks on this machine, written as JSON, tables and plots."""

from __future__ import annotations

import click

from worker.cli.bench_all import all_command
from worker.cli.bench_fleet import fleet_command
from worker.cli.bench_images import images_command
from worker.cli.bench_model import model_command
from worker.cli.bench_neighbour import neighbour_command
from worker.cli.bench_peers import peers_command
from worker.cli.bench_pipeline import pipeline_command
from worker.cli.bench_quality import quality_command
from worker.cli.bench_scale import scale_command
from worker.cli.bench_submit import submit_command


@click.group("bench")
def bench_command() -> None:
    """Measure on this machine."""


for command in (
    images_command,
    model_command,
    pipeline_command,
    scale_command,
    fleet_command,
    neighbour_command,
    submit_command,
    quality_command,
    peers_command,
    all_command,
):
    bench_command.add_command(command)
