"""`worker model list` and `worker model show`: describe the bundle of a source without fetching its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from worker.cli.known_networks import entry_facts, known_rows, print_known
from worker.cli.model_source import JSON, SOURCE, model_settings, object_store, print_warnings
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import BundleError
from worker.contract.settings import ModelSettings
from worker.cpu.isa import Recommendation
from worker.model.format.layout import Candidate
from worker.model.format.manifest import verified_sha256
from worker.model.format.variant import choose
from worker.model.loading import recommendation
from worker.model.sources import bundles, catalogue, prepared
from worker.model.sources.bundles import Survey

_MIB = 1 << 20


@click.command("list")
@SOURCE
@click.option("--known", is_flag=True, help="List the published networks that have a name instead.")
@JSON
def list_command(*, source: str | None, known: bool, as_json: bool) -> int:
    """List the variants of SOURCE and mark the one that this CPU would run.

    The files of a local bundle are compared with the digests in its manifest. Of a remote bundle only the manifest is
    fetched.
    """
    config = settings.load()
    if known:
        return _list_known(config.model, as_json=as_json)
    model = model_settings(config, source)
    with object_store(config, model.source) as store:
        survey = bundles.survey(model, store)
    best = recommendation()
    chosen, why = _choice(survey, model, best)
    rows = [_row(survey, candidate, chosen) for candidate in survey.listing.candidates]
    sound = bool(rows) and all(row["sound"] for row in rows)
    if as_json:
        console.print_json(
            {
                "source": survey.source,
                "variants": rows,
                "choice": chosen.label if chosen else None,
                "reason": why,
                "isa": best.isa,
                "inference_precision": best.inference_precision,
                "precision_reasons": list(best.why),
                "warnings": list(survey.warnings),
            }
        )
    else:
        _print_list(survey, rows, why, best)
    return Exit.OK if sound else Exit.SETUP


@click.command("show")
@SOURCE
@JSON
def show_command(*, source: str | None, as_json: bool) -> int:
    """Show the manifest of SOURCE and the preprocessing of each network.

    The manifest states origin, licence and agreement with FP32.
    """
    config = settings.load()
    model = model_settings(config, source)
    known = entry_facts(model.source)
    if known is not None and prepared.find(catalogue.get(model.source), model) is None:
        return _show_known(known, as_json=as_json)
    with object_store(config, model.source) as store:
        survey = bundles.survey(model, store)
    facts = {key: value for key, value in survey.facts.items() if key != "files"}
    info = _model_info(survey)
    if as_json:
        console.print_json(
            {
                "source": survey.source,
                "variants": [candidate.label for candidate in survey.listing.candidates],
                "manifest": facts,
                "model_info": info,
                "warnings": list(survey.warnings),
            }
            | ({"network": known} if known else {})
        )
        return Exit.OK
    console.out.print(f"[bold]{survey.source}[/]: {survey.listing.labels()}", soft_wrap=True)
    if not facts:
        console.out.print("no manifest: origin, licence and agreement are unknown")
    _print_tree(facts)
    if known:
        console.out.print("[bold]published network[/]")
        _print_tree(known, 1)
    for label, section in info.items():
        console.out.print(f"[bold]model_info of {label}[/]")
        _print_tree(section, 1)
    if survey.root is None:
        console.out.print("model_info is shown for local networks only; `worker model fetch` prints where it puts them")
    print_warnings(survey.warnings)
    return Exit.OK


def _list_known(model: ModelSettings, *, as_json: bool) -> int:
    if as_json:
        console.print_json({"networks": known_rows(model)})
    else:
        print_known(model)
    return Exit.OK


def _show_known(known: dict[str, Any], *, as_json: bool) -> int:
    """Show a network of the catalogue that is not prepared on this machine."""
    if as_json:
        console.print_json({"source": known["name"], "prepared": False, "network": known})
        return Exit.OK
    console.out.print(f"[bold]{known['name']}[/]: not prepared; `worker model fetch {known['name']}` does it")
    _print_tree(known)
    return Exit.OK


def _choice(survey: Survey, model: ModelSettings, best: Recommendation) -> tuple[Candidate | None, str]:
    try:
        failed = survey.manifest.failed_variants() if survey.manifest else {}
        choice = choose(survey.listing, model, best.precisions, failed)
    except BundleError as error:
        return None, f"no variant would run: {error}"
    return choice.candidate, choice.reason


def _row(survey: Survey, candidate: Candidate, chosen: Candidate | None) -> dict[str, Any]:
    digests = _digests(survey, candidate)
    return {
        "name": candidate.name,
        "size": candidate.size.as_json(),
        "precision": candidate.precision,
        "bytes": sum(survey.sizes.get(path, 0) for path in (candidate.xml, candidate.bin)),
        "digests": digests,
        "sound": not digests.startswith("WRONG"),
        "agreement_failure": survey.manifest.failed_variants().get(candidate.xml, "") if survey.manifest else "",
        "chosen": candidate == chosen,
    }


def _digests(survey: Survey, candidate: Candidate) -> str:
    """Describe the state of a variant's digests; the text begins with WRONG if the variant cannot be used."""
    if candidate.missing:
        return f"WRONG: {candidate.missing} is missing"
    if survey.manifest is None:
        origin = survey.digest_origin
        return f"verified on fetch, against {origin}" if origin else "none: no manifest"
    for path in (candidate.xml, candidate.bin):
        if path not in survey.manifest.files:
            return f"WRONG: {path} is not in the manifest"
        if survey.root:
            try:
                verified_sha256(survey.manifest, path, survey.root / path, remedy="copy the bundle again")
            except BundleError as error:
                return f"WRONG: {error}"
    return "verified" if survey.root else "in the manifest, verified on fetch"


def _print_list(survey: Survey, rows: list[dict[str, Any]], why: str, best: Recommendation) -> None:
    table = Table("", "variant", "size", "precision", "MiB", "digests", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        size = f"{row['bytes'] / _MIB:.1f}"
        table.add_row(
            "*" if row["chosen"] else "",
            row["name"],
            str(row["size"]),
            row["precision"],
            size,
            row["digests"] + (f"; DIFFERS from FP32: {row['agreement_failure']}" if row["agreement_failure"] else ""),
        )
    console.out.print(survey.source, style="bold", markup=False, soft_wrap=True)
    console.SafeConsole(width=max(console.out.width, 120), highlight=False).print(table)
    console.out.print(f"* {why}", markup=False, soft_wrap=True)
    console.out.print(f"float part in {best.inference_precision}; this CPU: {best.isa}")
    for sentence in best.why:
        console.out.print(f"- {sentence}", markup=False, soft_wrap=True)
    print_warnings(survey.warnings)


def _model_info(survey: Survey) -> dict[str, dict[str, str]]:
    """Return the model_info of each valid variant of a local bundle, by label; empty for a remote bundle."""
    if survey.root is None:
        return {}
    from worker.convert.model_info import read_model_info  # imports OpenVINO

    return {
        candidate.label: read_model_info(survey.root / candidate.xml)
        for candidate in survey.listing.candidates
        if not _digests(survey, candidate).startswith("WRONG")
    }


def _print_tree(facts: Mapping[str, Any], depth: int = 0) -> None:
    for key, value in facts.items():
        line = f"{'  ' * depth}{key}:"
        if isinstance(value, dict):
            console.out.print(line, markup=False)
            _print_tree(value, depth + 1)
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            console.out.print(line, markup=False)
            for one in value:
                text = ", ".join(f"{name}: {fact}" for name, fact in one.items())
                console.out.print(f"{'  ' * (depth + 1)}- {text}", markup=False, soft_wrap=True)
        else:
            console.out.print(f"{line} {value}", markup=False, soft_wrap=True)
