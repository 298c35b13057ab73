"""What the verbs print: tables, and plain lines where the output is no terminal."""

import sys
from collections.abc import Sequence
from typing import Any

from raykd.cli.output.text import print_lines, print_table
from raykd.store.folder import Folder, join_uri


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
    nets = {"student": f"{result['student']}, {result['method']}", "untrained": result["student"]}
    rows = []
    for source, row in result["rows"].items():
        interval = f" ± {row['interval']:.2f}" if row["interval"] is not None else ""
        top1 = format_percent(row["accuracy"]) + interval
        net = nets.get(source, result["teacher"])
        rows.append({"features of": source, "net": net, "test top-1": top1, "n": len(row["seeds"])})
    print_table(rows, title=title)
    if result["teacher"] and "teacher" not in result["rows"]:
        print("the teacher's weights are not where they were; --teacher names them")
    print(f"transfer: {join_uri(folder.uri, 'transfer.json')}")


def print_methods(entries: Any) -> None:
    """Prints the list of methods as a table, or one method in full."""
    if isinstance(entries, list):
        columns = {"method": "name", "status": "status", "needs": "needs", "searched fields": "num_ranges"}
        rows = [
            {name: item[key] for name, key in columns.items()}
            | {
                "method": item["name"] + _name_origin(item),
                "needs": ", ".join(item["needs"]),
                "paper": item["paper"],
            }
            for item in entries
        ]
        print_table(rows, prose=("needs", "paper"))
        return
    title = f"{entries['name']}{_name_origin(entries)} ({entries['status']}): {entries['paper']}"
    print_lines([title, "", *entries["text"].splitlines(), ""])
    columns = {"field": "path", "range": "range", "paper's value": "paper", "only when": "conditions"}
    fields = [{name: field[key] for name, key in columns.items()} for field in entries["fields"]]
    if fields:
        print_table(fields, prose=("range", "only when"))
    print_lines(["", "to compare with a paper:"])
    for row in entries["notes"]:
        setting = f"(--set {row['setting']})" if row["setting"] else "(no setting)"
        print_lines([f"  - {row['note']} {setting}"], 4)
    for row in entries["published"]:
        print_lines(["", f"published: {row['system']} on {row['data']} (source: {row['source']})"])
        for pair, values in row["top1"].items():
            print(f"  {pair}: {' / '.join(f'{value:g}' for value in values)} %")


def _name_origin(item: dict[str, Any]) -> str:
    return "" if item["origin"] == "raykd" else f" of {item['origin']}"


def print_checks(name: str, results: Sequence[tuple[str, str]]) -> None:
    """Prints which promises of the contract a method keeps, and why it does not keep the others."""
    for promise, fault in results:
        print_lines([f"broken  {promise}", f"        {fault}"] if fault else [f"kept    {promise}"], 8)
    num_broken = sum(bool(fault) for _, fault in results)
    print(f"{name}: {num_broken} of {len(results)} promises broken" if num_broken else f"{name}: all kept")
