"""Verbs of what a study needs: its plan, its machines."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from raykd.cli.options import (
    NOTHING,
    Address,
    Data,
    Download,
    Json,
    Set,
    Storage,
    StudyFile,
    root_of,
    study_of,
)

app = typer.Typer()


@app.command()
def plan(
    study: StudyFile,
    set_: Set = NOTHING,
    storage: Storage = "runs",
    data: Data = None,
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
    from raykd.planning.plan import Asked, planned

    asked = Asked(root_of(data), download, storage, images_per_second, probe, price)
    made = planned(study_of(study, set_), asked)
    print(json.dumps(asdict(made), indent=1)) if as_json else plan.plan(made)


@app.command()
def doctor(
    study: Annotated[Path | None, Argument(metavar="[STUDY]", help="A study file that should run.")] = None,
    set_: Set = NOTHING,
    address: Address = None,
    storage: Storage = "runs",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Ask every node of a cluster what would keep a study from running; exit 1 if something does."""
    from dataclasses import asdict

    from raykd.cli.output import plan
    from raykd.doctor.doctor import examine

    found = examine(address, storage, root_of(data), None if study is None else study_of(study, set_))
    plain = asdict(found) | {"can_run": found.can_run()}
    print(json.dumps(plain, indent=1)) if as_json else plan.health(found)
    if not found.can_run():
        sys.exit(1)
