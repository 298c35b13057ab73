"""The status of a run, printed."""

from typing import Any

from raykd.cli.output.tables import format_duration, format_params, format_percent
from raykd.cli.output.text import print_lines
from raykd.metric import describe_judged, get_metric, get_score
from raykd.study.constraints import describe_students


def print_status(status: dict[str, Any]) -> None:
    """Prints what `store.status.get_status` says of a run."""
    counts = status["trials"]
    lines = [
        f"{status['study']} ({status['method']}): {status['state']}"
        + (f", {status['stop_reason']}" if status["stop_reason"] else ""),
        f"trials    {counts['complete']} done, {counts['pruned']} pruned, {counts['fail']} failed, "
        f"{counts['running'] + counts['waiting']} under way, of {status['budget_trials']}",
    ]
    if any(start != "random" for start in status["starts"].values()):
        lines.append(f"starts    {', '.join(f'{role}: {start}' for role, start in status['starts'].items())}")
    judged = describe_judged(get_metric(status["best"] or status["paper"] or {}))
    for name in ("best", "paper"):
        if row := status[name]:
            progress = [row["state"].lower(), f"epoch {row['epochs']}", *filter(None, [row.get("breaks")])]
            lines.append(
                f"{name:<9} {format_percent(get_score(row))} held-out{judged}, trial {row['number']} ("
                f"{', '.join(progress)})  {format_params(row['params'])}"
            )
    lines += _format_costs(status)
    lines += [
        f"mixed     {key}: {', '.join(f'{count} x {value}' for value, count in counts.items())}; "
        f"their accuracies do not compare exactly"
        for key, counts in status["mixtures"].items()
    ]
    if status["seconds_left"] and status["state"] == "running":
        lines.append(f"left      about {format_duration(status['seconds_left'])}")
    for role, accuracies in status["test_accuracies"].items():
        mean = sum(accuracies) / len(accuracies)
        lines.append(f"test      {role}: {mean:.2f} %{judged} (n = {len(accuracies)})")
    lines += [f"student   {name}: {words}" for name, words in describe_students(status["students"]).items()]
    lines += [f"failed    trial {f['trial']}: {f['reason']}" for f in status["failures"][:10]]
    if status["lock_holder"]:
        lines.append(f"driver    {status['lock_holder']}")
    print_lines(lines, 10)


def _format_costs(status: dict[str, Any]) -> list[str]:
    """Time, what pruning and the teacher's cache saved of it, disk, retries."""
    device, saved, limit = status["device"], status["saved_by_pruning"], status["disk_gb"]
    lines = [f"spent     {status['device_hours']:.2f} {device}-hours"]
    if saved["epochs"]:
        lines.append(
            f"saved     {saved['device_hours']:.2f} {device}-hours by pruning ({saved['epochs']} epochs)"
        )
    if cache := status["teacher_cache"]:
        share = 100 * cache["hits"] / (cache["hits"] + cache["misses"])
        lines.append(
            f"teacher   {share:.1f} % of its outputs from the cache in the last {cache['trials']} trials, "
            f"{format_duration(cache['seconds_saved'])} saved"
        )
    disk = f"disk      {status['disk_bytes'] / 1e6:.1f} MB"
    lines.append(disk + (f" of {1000 * limit:.0f} MB (budget/disk_gb)" if limit else ""))
    if retries := status["retries"]:
        lines.append(
            f"retries   {sum(row['lost'] for row in retries)} lost and tried again, "
            f"{sum(row['errors'] for row in retries)} errors, in {len(retries)} trials"
        )
    return lines
