"""The part of `.env.example` that lists maskmill's settings, generated from the code.

    PYTHONPATH=.:tests python -m support.env_example

prints it. Paste it below the line `# -- settings` when a setting or its description changes.
"""

from __future__ import annotations

import textwrap

from pydantic_core import PydanticUndefined

from worker.contract.settings import ENV_PREFIX, Settings

MARK = "# -- settings"
_SET_BY_THE_SUPERVISOR = {"MASKMILL_WORKER__PROCESS_NAME"}


def settings_part() -> str:
    """Return every setting as a comment, with its description and default, grouped as in the code."""
    blocks = []
    for group_name, group in Settings.model_fields.items():
        lines = [f"# {(type(group.default).__doc__ or '').splitlines()[0]}"]
        for name, field in type(group.default).model_fields.items():
            variable = f"{ENV_PREFIX}{group_name}__{name}".upper()
            if variable in _SET_BY_THE_SUPERVISOR:
                continue
            if field.description:
                lines += textwrap.wrap(field.description, 116, initial_indent="#   ", subsequent_indent="#   ")
            lines.append(f"#{variable}={_default(name, field.default)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _default(name: str, value: object) -> str:
    if value is PydanticUndefined:
        return {"cache_dir": "~/.cache/maskmill", "node_name": ""}[name]
    if value is None or value == ():
        return ""
    # The default of a secret is not confidential.
    return str(getattr(value, "get_secret_value", lambda: value)())


if __name__ == "__main__":
    print(settings_part(), end="")  # noqa: T201
