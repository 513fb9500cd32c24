"""`worker model`: inspect, fetch, convert and import bundles. Sub-commands are imported only when they are called."""

from __future__ import annotations

import click

from worker.contract import console

_COMMANDS = {
    "list": ("worker.cli.model_list", "list_command"),
    "show": ("worker.cli.model_list", "show_command"),
    "fetch": ("worker.cli.model_fetch", "fetch_command"),
    "verify": ("worker.cli.model_verify", "verify_command"),
    "convert": ("worker.cli.model_convert", "convert_command"),
    "import": ("worker.cli.model_import", "import_command"),
}

EPILOG = """\b
SOURCE is a name that `worker model list --known` shows, builtin:NAME, a folder, s3://bucket/prefix or
hf://owner/name[@revision] [default: the value of MASKMILL_MODEL__SOURCE].

\b
Examples:
  worker model list --known
  worker model fetch u2netp
  worker model list hf://owner/birefnet-openvino
  worker model fetch hf://owner/birefnet-openvino --size 512
  worker model verify ./bundle --images photos --masks truth --min-iou 0.97
"""


@click.group("model", cls=console.LazyGroup, entry_points=_COMMANDS, epilog=EPILOG)
def model_command() -> None:
    """List, show, fetch, verify, convert and import model bundles."""
