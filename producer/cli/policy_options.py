"""Options for how a job runs, shared by every command that submits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from worker.contract.messages import JobPolicy, Priority

Threshold = dict[str, Any]
"""The fields of `JobPolicy` that an error threshold sets."""


class ErrorThreshold(click.ParamType[Threshold]):
    """Parses a number of images (`100`) or a share of the images done (`5%`)."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Threshold:
        """Return the fields of `JobPolicy` that the value sets."""
        text = str(value).strip()
        try:
            threshold: Threshold = (
                {"max_failed_percent": float(text.removesuffix("%"))}
                if text.endswith("%")
                else {"max_failed": int(text)}
            )
            JobPolicy(**threshold)
        except ValueError:
            self.fail(f"{value!r} is neither a number of images, such as 100, nor a share, such as 5%", param, ctx)
        return threshold


_OPTIONS = [
    click.option(
        "--priority",
        type=click.Choice([priority.value for priority in Priority]),
        default=Priority.NORMAL.value,
        show_default=True,
        help="Share of the workers when several jobs run: high gets four times as much as normal, low a quarter.",
    ),
    click.option(
        "--error-threshold",
        type=ErrorThreshold(),
        help="Stop the job when more images than this have failed: a number, or a share of the images "
        "done, such as 5%.",
    ),
    click.option(
        "--max-attempts",
        type=click.IntRange(1, 100),
        default=JobPolicy().max_attempts,
        show_default=True,
        help="Number of times an image may crash its worker process before its outcome is dead.",
    ),
    click.option("--force", is_flag=True, help="Also process images whose outputs are up to date."),
]


def policy_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add these options to a command, which receives them as one argument, `policy`."""

    @functools.wraps(command)
    def call(*, priority: str, error_threshold: Threshold | None, max_attempts: int, force: bool, **rest: Any) -> int:
        policy = JobPolicy(
            priority=Priority(priority), max_attempts=max_attempts, skip_existing=not force, **(error_threshold or {})
        )
        return command(policy=policy, **rest)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
