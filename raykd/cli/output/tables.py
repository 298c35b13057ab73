"""What the verbs print: tables, and plain lines where the output is no terminal."""

import os
import sys
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from raykd.store.folder import Folder, join_uri

# into a pipe or a file nothing is cut: there a line is as long as what it says
IS_TERMINAL = sys.stdout is not None and sys.stdout.isatty()  # None: it was closed
console = Console(highlight=False, width=None if IS_TERMINAL or "COLUMNS" in os.environ else 1000)


def format_duration(seconds: float) -> str:
    """Returns seconds in words: "12 s", "5 min", "3.1 h", "2.4 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def format_percent(value: float | None) -> str:
    """Returns a percentage with two digits; "-" where there is none."""
    return "-" if value is None else f"{value:.2f} %"


def format_params(params: dict[str, Any]) -> str:
    """Returns the params of a trial in one line, path=value."""
    return "  ".join(
        f"{path}={v:.4g}" if isinstance(v, float) else f"{path}={v}" for path, v in params.items()
    )


def print_epoch(row: dict[str, Any]) -> None:
    """Prints an epoch's row in one line."""
    terms = "  ".join(f"{name} {value:.4f}" for name, value in row["terms"].items())
    print(
        f"epoch {row['epoch']:>3}  held-out {format_percent(row['accuracy']):>8}  {terms}  "
        f"{row['seconds']:.1f} s",
        flush=True,
    )


def print_trained(row: dict[str, Any], folder: Folder, was_done: bool) -> None:
    """Prints the last epoch of a training, and where its student lies; or that it was done before."""
    test_text = f", test {format_percent(row['test_accuracy'])}" if "test_accuracy" in row else ""
    done = "trained before, nothing to do" if was_done else "trained"
    print(
        f"{done}: held-out {format_percent(row['accuracy'])}{test_text} after {row['epoch']} epochs; "
        f"{folder.uri}"
    )


def print_export(uri: str, left_out: dict[str, str]) -> None:
    """Prints where an export lies, and which files were left out of it and why."""
    print(f"export: {uri}")
    for name, reason in left_out.items():
        print(f"export: {name} left out: {reason}")


def print_probe(source: str, seed: int, accuracy: float) -> None:
    """Prints one linear probe's accuracy (%) on stderr, as it comes."""
    print(f"{source}, seed {seed}: {format_percent(accuracy)}", file=sys.stderr, flush=True)


def print_transfer(dataset: str, result: dict[str, Any], folder: Folder) -> None:
    """Prints a transfer's result as a table, and where its file lies."""
    images = result["images"]
    title = f"Linear probe on {dataset}: {images['train']:,} training, {images['test']:,} test images"
    table = _make_table("features of", "net", "test top-1", "n")
    table.title, table.title_justify = title, "left"
    nets = {"student": f"{result['student']}, {result['method']}", "untrained": result["student"]}
    for source, row in result["rows"].items():
        interval = f" ± {row['interval']:.2f}" if row["interval"] is not None else ""
        net = nets.get(source, result["teacher"])
        table.add_row(source, net, format_percent(row["accuracy"]) + interval, str(len(row["seeds"])))
    console.print(table)
    if result["teacher"] and "teacher" not in result["rows"]:
        print("the teacher's weights are not where they were; --teacher names them")
    print(f"transfer: {join_uri(folder.uri, 'transfer.json')}")


def print_methods(entries: Any) -> None:
    """Prints the list of methods as a table, or one method in full."""
    if isinstance(entries, list):
        table = _make_table("method", "status", "needs", "searched fields", "paper")
        for item in entries:
            table.add_row(
                item["name"], item["status"], ", ".join(item["needs"]), str(item["num_ranges"]), item["paper"]
            )
        console.print(table)
        return
    print(f"{entries['name']} ({entries['status']}): {entries['paper']}\n\n{entries['text']}\n")
    table = _make_table("field", "range", "paper's value", "only when")
    for field in entries["fields"]:
        table.add_row(field["path"], field["range"], str(field["paper"]), field["conditions"])
    console.print(table)
    print("\nto compare with a paper:")
    for row in entries["notes"]:
        print(f"  - {row['note']}" + (f" (--set {row['setting']})" if row["setting"] else " (no setting)"))
    for row in entries["published"]:
        print(f"\npublished: {row['system']} on {row['data']} (source: {row['source']})")
        for pair, values in row["top1"].items():
            print(f"  {pair}: {' / '.join(f'{value:g}' for value in values)} %")


def _make_table(*names: str) -> Table:
    """A table that breaks long words rather than cutting them off."""
    return Table(*(Column(name, overflow="fold") for name in names))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints rows of plain values as a table."""
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(
            *("-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
        )
    console.print(table)
