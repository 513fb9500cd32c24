"""Serve the embedded Redis and S3 on an address of the network instead of loopback, until standard input ends.

    python -m support.netns_services FOLDER ADDRESS

prints the settings as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from worker.standalone import ports


def main(folder: Path, address: str) -> None:
    """Serve until standard input ends."""
    ports.LOOPBACK = address  # the import below copies it
    from worker.standalone.services import Standalone

    with Standalone(folder) as services:
        print(json.dumps(services.environment()), flush=True)  # noqa: T201 -- what the caller waits for
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
