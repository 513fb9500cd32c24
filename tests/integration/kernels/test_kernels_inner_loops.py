"""Every set of inner loops against the definition: random shapes, any offset, 1 to 8 threads, concurrent calls.

The program is `worker/kernels/src/tests/test.cpp`. Under sanitizers it runs with plain threads instead of TBB.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from support.kernels import STRICT
from worker.kernels import build

pytestmark = pytest.mark.timeout(600)

PROBLEMS = {"": 300, "address,undefined": 60, "thread": 40}


@pytest.mark.parametrize("sanitize", PROBLEMS, ids=lambda value: value or "plain")
def test_random_problems(tmp_path, sanitize):
    if isinstance(missing := build.tools(), str):
        pytest.skip(missing)
    programs = build.build_programs(tmp_path, sanitize=sanitize, strict=STRICT)
    command = [str(programs["kernels_test"]), str(PROBLEMS[sanitize])]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("tested") >= 1


def test_code_for_newer_cpus_shares_no_function_with_the_rest(tmp_path):
    """The linker keeps one copy of a shared function: that of another file might use instructions that a CPU lacks."""
    if isinstance(missing := build.tools(), str):
        pytest.skip(missing)
    build.build_programs(tmp_path, strict=STRICT)
    objects = [path for path in tmp_path.rglob("core/*.o") if re.search("avx|amx|attention_", path.name)]

    symbols = {path.name: subprocess.check_output(["nm", "-C", path], text=True) for path in objects}

    assert len(symbols) >= 8
    assert not {name: text for name, text in symbols.items() if re.search(" [WVu] ", text)}
