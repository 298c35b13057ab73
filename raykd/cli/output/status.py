"""Where a run stands."""

import sys
from typing import Any

from raykd.cli.output.tables import drawn, duration, percent


def standing(stands: dict[str, Any]) -> None:
    counts = stands["trials"]
    lines = [
        f"{stands['study']} ({stands['method']}): {stands['state']}"
        + (f", {stands['why']}" if stands["why"] else ""),
        f"trials    {counts['complete']} done, {counts['pruned']} pruned, {counts['fail']} failed, "
        f"{counts['running'] + counts['waiting']} under way, of {stands['asked']}",
    ]
    for name in ("best", "paper"):
        if row := stands[name]:
            lines.append(
                f"{name:<9} {percent(row['accuracy'])} held-out, trial {row['number']} ("
                f"{row['state'].lower()}, "
                f"epoch {row['epochs']})  {drawn(row['drawn'])}"
            )
    lines += _spent(stands)
    if stands["seconds_left"] and stands["state"] == "running":
        lines.append(f"left      about {duration(stands['seconds_left'])}")
    for role, values in stands["confirmed"].items():
        mean = sum(values) / len(values)
        lines.append(f"test      {role}: {mean:.2f} % (n = {len(values)})")
    lines += [f"failed    trial {f['trial']}: {f['reason']}" for f in stands["failures"][:10]]
    if stands["driver"]:
        lines.append(f"driver    {stands['driver']}")
    print("\n".join(lines), file=sys.stdout)


def _spent(stands: dict[str, Any]) -> list[str]:
    """Time, what pruning and the teacher's table saved of it, disk, retries."""
    device, saved, cap = stands["device"], stands["saved"], stands["disk_gb"]
    lines = [f"spent     {stands['device_hours']:.2f} {device}-hours"]
    if saved["epochs"]:
        lines.append(
            f"saved     {saved['device_hours']:.2f} {device}-hours by pruning ({saved['epochs']} epochs)"
        )
    if told := stands["teacher"]:
        share = 100 * told["hits"] / (told["hits"] + told["misses"])
        lines.append(
            f"teacher   {share:.1f} % of its answers from the table in the last {told['trials']} trials, "
            f"{duration(told['seconds_saved'])} saved"
        )
    disk = f"disk      {stands['disk_bytes'] / 1e6:.1f} MB"
    lines.append(disk + (f" of {1000 * cap:.0f} MB (budget/disk_gb)" if cap else ""))
    if again := stands["tried_again"]:
        lines.append(
            f"again     {sum(row['lost'] for row in again)} lost and tried again, "
            f"{sum(row['tries'] for row in again)} errors, in {len(again)} trials"
        )
    return lines
