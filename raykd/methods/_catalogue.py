"""What is known of the methods: source, status, needs, fields and ranges."""

import json
from importlib import resources
from typing import Any

from raykd import methods, plugins
from raykd.spec import collect_dimensions, get_value

NOTES = (
    ("nets run in bfloat16 where the hardware has it, in float32 elsewhere", "precision=float32"),
    (
        "accuracies are those of a moving average of the weights (ema_decay a step); papers take the weights",
        "ema_decay=0.0",
    ),
    (
        "the last epoch counts, as for RepDistiller; mdistiller, CKD and SSKD print the epoch that is best "
        "on the test set",
        "",
    ),
    (
        "a search trains on what is not held out (of CIFAR-100's 50,000 images 45,000), and so does the "
        "study's own teacher; confirm retrains students on all of them, raykd train can",
        "data/holdout=0.0",
    ),
    ("each epoch leaves out the images that do not fill a last batch", ""),
)
LEARNABLE_SCALARS = frozenset({"dcd"})  # tau and the bias


def list_methods() -> list[dict[str, Any]]:
    """One line a method."""
    return [
        {k: v for k, v in describe(name).items() if k not in ("text", "fields", "notes", "published")}
        for name in methods.names()
    ]


def describe(name: str) -> dict[str, Any]:
    """A method in full. ValueError with the nearest name when there is none."""
    method, config_class = methods.get_class(name), methods.get_config_class(name)
    space = collect_dimensions(config_class, "method/")
    defaults = methods.get_default(name).model_dump(mode="json")
    return {
        "name": name,
        "status": method.status,
        "origin": plugins.get_origin("methods", name) or "raykd",
        "needs": sorted(method.needs),
        "num_ranges": len(space),
        "paper": method.paper,
        "text": methods.get_text(name),
        "fields": [
            {
                "path": path,
                "range": str(dimension),
                "paper": get_value(defaults, path.removeprefix("method/")),
                "conditions": " and ".join(f"{p} = {v}" for p, v in dimension.conditions),
            }
            for path, dimension in space.items()
        ],
        "notes": list_notes(name),
        "published": [row for row in read_published() if row["method"] == name],
    }


def list_notes(name: str) -> list[dict[str, str]]:
    """Returns what one must know to compare a method's numbers with a paper's.

    Each is a note and the setting that switches it, as --set takes it; "" where none does.
    """
    notes = list(NOTES)
    if name in LEARNABLE_SCALARS:
        notes.append(
            (
                "its learnable scalars take no weight decay; the released code's do",
                "optimizer/decay_scalars=true",
            )
        )
    if "sampling" in methods.get_config_class(name).model_fields:
        notes.append(
            (
                "all images of a batch share one draw of negatives; in CRD's code each draws its own, which "
                "takes longer",
                "method/sampling=per_sample",
            )
        )
    return [{"note": note, "setting": setting} for note, setting in notes]


def read_published() -> list[dict[str, Any]]:
    """What papers and official codes print: data, system, method, source, top1 {pair: [values, %]}."""
    text = resources.files("raykd.methods").joinpath("published.json").read_text()
    rows: list[dict[str, Any]] = json.loads(text)
    return rows
