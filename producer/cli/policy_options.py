"""Options that say how a job is run: the same words for every command that submits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from worker.contract.messages import JobPolicy, Priority

Threshold = dict[str, Any]


class ErrorThreshold(click.ParamType[Threshold]):
    """`100`, or `5%` of the images done."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Threshold:
        """The fields of `JobPolicy` that it stands for."""
        text = str(value).strip()
        try:
            found: Threshold = (
                {"max_failed_percent": float(text.removesuffix("%"))}
                if text.endswith("%")
                else {"max_failed": int(text)}
            )
            JobPolicy(**found)
        except ValueError:
            self.fail(f"{value!r} is neither a number of images, as 100, nor a share of them, as 5%", param, ctx)
        return found


_OPTIONS = [
    click.option(
        "--priority",
        type=click.Choice([priority.value for priority in Priority]),
        default=Priority.NORMAL.value,
        show_default=True,
        help="Share of the workers beside other jobs: high gets four times as much as normal, low a quarter.",
    ),
    click.option(
        "--error-threshold",
        type=ErrorThreshold(),
        help="Stop the job when more images than this have failed: a number, or a share of those done, as 5%.",
    ),
    click.option(
        "--max-attempts",
        type=click.IntRange(1, 100),
        default=JobPolicy().max_attempts,
        show_default=True,
        help="Times that an image may take its worker process down before it counts as dead.",
    ),
    click.option("--force", is_flag=True, help="Do images whose outputs are up to date as well."),
]


def policy_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command these options; it gets them as one argument, `policy`."""

    @functools.wraps(command)
    def call(*, priority: str, error_threshold: Threshold | None, max_attempts: int, force: bool, **rest: Any) -> int:
        policy = JobPolicy(
            priority=Priority(priority), max_attempts=max_attempts, skip_existing=not force, **(error_threshold or {})
        )
        return command(policy=policy, **rest)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
