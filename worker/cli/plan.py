"""`worker plan`."""

from __future__ import annotations

import click

from worker.contract import console, settings
from worker.contract.console import Exit
from worker.cpu import isa, placement, topology
from worker.node import tuned_plan


@click.command("plan")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of words.")
def plan_command(*, as_json: bool) -> int:
    """Show which process gets which cores, with how many streams and threads, and why.

    `worker tune` measures what is best here; every number can be set by hand: MASKMILL_PLAN__PROCESSES, __STREAMS,
    __THREADS.
    """
    config = settings.load()
    machine = topology.read()
    tuned = tuned_plan.tuned_settings(machine, config.plan, config.model)
    plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
    advice = isa.recommend(machine.flags, machine.memory_bytes)
    if as_json:
        console.print_json(
            plan.as_dict()
            | {
                "cpu": machine.model_name,
                "isa": advice.isa,
                "tuning": tuned.why,
                "precisions": list(advice.precisions),
                "inference_precision": advice.inference_precision,
                "precision_reasons": list(advice.why),
            }
        )
        return Exit.OK
    console.out.print(f"[bold]{machine.model_name}[/] ({advice.isa})")
    console.out.print(plan.as_text(), markup=False, soft_wrap=True)
    console.out.print(f"- {tuned.why}", markup=False, soft_wrap=True)
    console.out.print(
        f"precision: {', '.join(advice.precisions)}, best first; float part in {advice.inference_precision}"
    )
    for sentence in advice.why:
        console.out.print(f"- {sentence}", markup=False, soft_wrap=True)
    return Exit.OK
