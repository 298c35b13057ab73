"""What the verbs print: tables, and plain lines where the output is no terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from raykd.store.folder import Folder, joined

console = Console(highlight=False)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def drawn(values: dict[str, Any]) -> str:
    return "  ".join(
        f"{path}={v:.4g}" if isinstance(v, float) else f"{path}={v}" for path, v in values.items()
    )


def epoch(row: dict[str, Any]) -> None:
    terms = "  ".join(f"{name} {value:.4f}" for name, value in row["terms"].items())
    print(
        f"epoch {row['epoch']:>3}  held-out {percent(row['accuracy']):>8}  {terms}  {row['seconds']:.1f} s",
        flush=True,
    )


def trained(row: dict[str, Any], folder: Folder) -> None:
    tested = f", test {percent(row['test_accuracy'])}" if "test_accuracy" in row else ""
    print(f"trained: held-out {percent(row['accuracy'])}{tested} after {row['epoch']} epochs; {folder.uri}")


def exported(place: str, left_out: dict[str, str]) -> None:
    print(f"export: {place}")
    for name, why in left_out.items():
        print(f"export: {name} left out: {why}")


def probed(whose: str, seed: int, accuracy: float) -> None:
    print(f"{whose}, seed {seed}: {percent(accuracy)}", file=sys.stderr, flush=True)


def transferred(to: str, result: dict[str, Any], folder: Folder) -> None:
    images = result["images"]
    title = f"Linear probe on {to}: {images['train']:,} training, {images['test']:,} test images"
    table = Table("features of", "net", "test top-1", "n", title=title, title_justify="left")
    nets = {"student": f"{result['student']}, {result['method']}", "untrained": result["student"]}
    for whose, row in result["rows"].items():
        interval = f" ± {row['interval']:.2f}" if row["interval"] is not None else ""
        net = nets.get(whose, result["teacher"])
        table.add_row(whose, net, percent(row["accuracy"]) + interval, str(len(row["seeds"])))
    console.print(table)
    if result["teacher"] and "teacher" not in result["rows"]:
        print("the teacher's weights are not where they were; --teacher names them")
    print(f"transfer: {joined(folder.uri, 'transfer.json')}")


def methods(found: Any) -> None:
    if isinstance(found, list):
        table = Table("method", "status", "needs", "searched fields", "paper")
        for item in found:
            table.add_row(
                item["name"], item["status"], ", ".join(item["needs"]), str(item["searched"]), item["paper"]
            )
        console.print(table)
        return
    print(f"{found['name']} ({found['status']}): {found['paper']}\n\n{found['text']}\n")
    table = Table("field", "range", "paper's value", "only when")
    for field in found["fields"]:
        table.add_row(field["path"], field["range"], str(field["paper"]), field["when"])
    console.print(table)
    for row in found["published"]:
        print(f"\npublished: {row['system']} on {row['data']} (source: {row['source']})")
        for pair, values in row["top1"].items():
            print(f"  {pair}: {' / '.join(f'{value:g}' for value in values)} %")


def table(rows: list[dict[str, Any]]) -> None:
    """Rows of plain values, as a table."""
    made = Table(box=None, pad_edge=False)
    for name in rows[0]:
        made.add_column(name, overflow="fold", justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        made.add_row(
            *("-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
        )
    console.print(made)
