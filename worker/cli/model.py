"""`worker model`: bundles of networks, from checkpoint to cache. One file per sub-command, loaded when it is called."""

from __future__ import annotations

import click

from worker.contract import console

_COMMANDS = {
    "list": ("worker.cli.model_list", "list_command"),
    "show": ("worker.cli.model_list", "show_command"),
    "fetch": ("worker.cli.model_fetch", "fetch_command"),
    "verify": ("worker.cli.model_verify", "verify_command"),
    "convert": ("worker.cli.model_convert", "convert_command"),
}

EPILOG = """\b
SOURCE is builtin:NAME, a folder, s3://bucket/prefix or hf://owner/name[@revision];
without it the one of MASKMILL_MODEL__SOURCE is taken.

\b
Examples:
  worker model list hf://owner/birefnet-openvino
  worker model fetch hf://owner/birefnet-openvino --size 512
  worker model verify ./bundle --images photos --masks truth --min-iou 0.97
"""


@click.group("model", cls=console.LazyGroup, entry_points=_COMMANDS, epilog=EPILOG)
def model_command() -> None:
    """List, fetch, show, verify and convert the network's bundles."""
