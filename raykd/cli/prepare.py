"""Verbs of what a study needs: its plan, its machines."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from raykd.cli.options import (
    NO_OVERRIDES,
    NO_PLUGINS,
    Address,
    Data,
    Download,
    Json,
    Plugin,
    Set,
    Storage,
    StudyFile,
    find_study,
    read_study,
    resolve_data_root,
)

app = typer.Typer()


@app.command()
def studies(
    name: Annotated[str | None, Argument(help="One study file or recipe, to print.")] = None,
    as_json: Json = False,
) -> None:
    """List the study files that come with raykd, and the recipes (found/...), which `raykd train` takes.

    With a name: print that one, as in `raykd studies quickstart > my.yaml`.
    """
    from raykd.cli.output.text import print_table
    from raykd.study.study_files import get_file, get_title, list_recipe_files, list_study_files

    files = list_study_files() | list_recipe_files()
    if name is not None:
        print(get_file(name, files).read_text(encoding="utf-8"), end="")
        return
    rows = [{"name": name, "study": get_title(path)} for name, path in files.items()]
    print(json.dumps(rows, indent=1)) if as_json else print_table(rows, prose=("study",))


@app.command()
def plan(
    study: StudyFile,
    set_: Set = NO_OVERRIDES,
    storage: Storage = "runs",
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    download: Download = False,
    probe: Annotated[
        str | None, Option(metavar="ADDRESS", help="Measure on a device of this Ray cluster, not here.")
    ] = None,
    images_per_second: Annotated[
        float | None, Option(help="Of one worker, each rotated view counted; nothing is measured.", min=1e-9)
    ] = None,
    price: Annotated[float | None, Option(help="Dollars of one device hour.", min=0)] = None,
    as_json: Json = False,
) -> None:
    """Show what a study will search and cost, from a short timing probe. Nothing is trained."""
    from dataclasses import asdict

    from raykd.cli.output import plan
    from raykd.cli.output.comparison import print_comparison_plan
    from raykd.planning.plan import PlanOptions, make_plan
    from raykd.study.comparison import Comparison

    options = PlanOptions(resolve_data_root(data), download, storage, images_per_second, probe, price)
    parsed = read_study(study, set_)
    if isinstance(parsed, Comparison):
        plans = {method: make_plan(one, options) for method, one in parsed.studies().items()}
        content = {"methods": {method: asdict(result) for method, result in plans.items()}}
        print(json.dumps(content, indent=1)) if as_json else print_comparison_plan(plans)
        return
    result = make_plan(parsed, options)
    print(json.dumps(asdict(result), indent=1)) if as_json else plan.print_plan(result)


@app.command()
def doctor(
    study: Annotated[
        Path | None, Argument(metavar="[STUDY]", callback=find_study, help="A study that should run.")
    ] = None,
    set_: Set = NO_OVERRIDES,
    address: Address = None,
    storage: Storage = "runs",
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    as_json: Json = False,
) -> None:
    """Ask every node of a cluster what would keep a study from running; exit 1 if something does."""
    from dataclasses import asdict

    from raykd.cli.output import plan
    from raykd.doctor.doctor import examine
    from raykd.study.comparison import list_studies

    first = None if study is None else list_studies(read_study(study, set_))[0]  # their needs are the same
    health = examine(address, storage, resolve_data_root(data), first)
    plain = asdict(health) | {"can_run": health.can_run()}
    print(json.dumps(plain, indent=1)) if as_json else plan.print_health(health)
    if not health.can_run():
        sys.exit(1)
