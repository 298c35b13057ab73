"""A run's JSON files -> checked rows. What cannot be read is left out or shown as unknown, and noted."""

from collections.abc import Sequence
from dataclasses import fields
from math import nan
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raykd.report.rows.types import Analysis, ConfirmRow, EpochRow, TrialRow
from raykd.store.run_files import Ledger

Row = TypeVar("Row", TrialRow, EpochRow, Analysis)
NAMED = 3  # places of a note that are named
CHECKED: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (TrialRow, EpochRow, Analysis)}


class Notes:
    """What is wrong with a run's files: each thing is told once, with the number of its places."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, what: str, where: str = "") -> None:
        self._places.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        return [_line(what, [w for w in where if w]) for what, where in self._places.items()]


def _line(what: str, where: Sequence[str]) -> str:
    named = ", ".join(where[:NAMED]) + (f" and {len(where) - NAMED} more" if len(where) > NAMED else "")
    return f"{named}: {what}" if named else what


def trials(ledger: Ledger, notes: Notes) -> list[TrialRow]:
    """The trials in the order of their numbers."""
    found = []
    folder = ledger.folder / "trials"
    names = folder.names()
    plain = folder.read_every([f"{name}/trial.json" for name in names])
    stamps = folder.read_every([f"{name}/stamp.json" for name in names])
    for name, told, stamp in zip(names, plain, stamps, strict=True):
        device = str(_dict(stamp).get("worker", "unknown"))
        row = _read(TrialRow, told, {"device": device}, f"trials/{name}/trial.json", notes)
        found += [row] if row is not None else []
    return sorted(found, key=lambda row: row.number)


def epochs(ledger: Ledger, trials: Sequence[TrialRow], notes: Notes) -> list[EpochRow]:
    """The epochs of the trials that have a held-out accuracy."""
    names = [f"trials/{trial.number:05d}/epochs.json" for trial in trials]
    found = []
    for trial, name, told in zip(trials, names, ledger.folder.read_every(names), strict=True):
        if not isinstance(told, list) and ledger.folder.exists(name):
            notes.add("left out: torn", name)
        for plain in told if isinstance(told, list) else []:
            if not isinstance(plain, dict) or plain.get("accuracy", "") is not None:
                row = _read(EpochRow, plain, {"trial": trial.number}, name, notes)
                found += [row] if row is not None else []
    return found


def confirmations(ledger: Ledger, notes: Notes) -> list[ConfirmRow]:
    """The retrainings that have opened the test set."""
    found = []
    folder = ledger.folder / "confirm"
    for name in folder.names():
        where, said = f"confirm/{name}/epochs.json", _dict((folder / name).read_json("trial.json"))
        plain = (folder / name).read_json("epochs.json")
        if not isinstance(plain, list) and (folder / name).exists("epochs.json"):
            notes.add("left out: torn", where)
        rows = [row for row in plain if isinstance(row, dict)] if isinstance(plain, list) else []
        tested = rows[-1].get("test_accuracy") if rows else None
        if not isinstance(tested, int | float):
            continue
        role, _, seed = name.rpartition("-seed")
        if not role or not seed.isdecimal():
            notes.add("left out: the folder's name says no role and seed", f"confirm/{name}")
            continue
        told = (folder / name).read_json("analysis.json")
        found.append(
            ConfirmRow(
                role=role,
                trial=said.get("number"),
                seed=int(seed),
                accuracy=float(tested),
                split=str(said.get("split", "test")),
                epochs=len(rows),
                seconds=sum(row.get("seconds", nan) for row in rows),
                analysis=_analysis(told, f"confirm/{name}/analysis.json", notes),
            )
        )
    return sorted(found, key=lambda row: (row.role, row.seed))


def _analysis(told: Any, where: str, notes: Notes) -> Analysis | None:
    if told is None:
        return None
    classes = [{"name": row.get("class"), **row} for row in _dict(told).get("per_class") or []]
    return _read(Analysis, {**_dict(told), "per_class": classes}, {}, where, notes)


def _read(kind: type[Row], plain: Any, known: dict[str, Any], where: str, notes: Notes) -> Row | None:
    """A row of `plain` and what is known already; None, and a note, where it cannot be one."""
    if not isinstance(plain, dict):
        notes.add("left out: missing, torn, or not a row", where)
        return None
    try:
        row: Row = CHECKED[kind].validate_python({**plain, **known})
    except ValidationError as error:
        wrong = error.errors()[0]
        place = "/".join(map(str, wrong["loc"]))
        notes.add(f"left out: {place}: {wrong['msg'].lower()}", where)
        return None
    if lacking := [f.name for f in fields(kind) if f.name not in plain and f.name not in known]:
        notes.add(f"does not say {', '.join(lacking)} (an older version's run?)", where)
    return row


def _dict(plain: Any) -> dict[str, Any]:
    return plain if isinstance(plain, dict) else {}
