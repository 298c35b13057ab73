"""Hand a student on: a folder with its recipe, its weights in three forms, its preprocessing and a card.

recipe.yaml           what `raykd train` takes to teach it again
student.safetensors   weights, under the names of raykd's nets
student.pt2           torch.export program: images -> logits, any batch; needs torch alone
student.onnx          the same for ONNX runtimes
preprocessing.json    how an image becomes an input, and the classes; also inside the three forms
stamp.json            program, machine, seed and teacher of the training
README.md             the card
"""

import json
from pathlib import Path

import safetensors.torch

from raykd import data
from raykd.export import card, programs
from raykd.export.choice import best, chosen, handed_on
from raykd.store.folder import Folder
from raykd.store.run_files import Ledger
from raykd.training.student import PREPROCESSING, WEIGHTS, built, preprocessing

__all__ = ["best", "export"]


def export(ledger: Ledger, out: Path, number: int | None = None, root: Path | None = None) -> dict[str, str]:
    """Write a run's student into `out`: that of trial `number`, or the study's result (choice.py). Answers
    what was left out, and why: {file: reason}.

    Both programs are compared with the PyTorch net on real training images; one that differs is not written.
    `root`: where data sets lie. BadInput: no such trial, its student was not kept, or its data set is not
    there.
    """
    taken, root = chosen(ledger, number), root or data.default_root()
    recipe = taken.recipe
    dataset = data.load(recipe.data, root, False)
    known = preprocessing(recipe.data, dataset)
    net = built(recipe, taken.folder, len(dataset.classes), dataset.size)
    out.mkdir(parents=True, exist_ok=True)
    Folder(str(out)).write_yaml("recipe.yaml", handed_on(taken, root).plain())
    (out / "stamp.json").write_bytes(taken.folder.read("stamp.json"))
    told = {"net": recipe.student.net, "preprocessing": json.dumps(known)}
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    (out / WEIGHTS).write_bytes(safetensors.torch.save(weights, {"format": "pt"} | told))
    (out / PREPROCESSING).write_text(json.dumps(known, indent=1) + "\n")
    written = programs.write(net, programs.real_images(recipe.data, dataset), told, out)
    (out / "README.md").write_text(card.card(ledger, taken, dataset, written, root))
    return {name: form.words for name, form in written.items() if not form.there}
