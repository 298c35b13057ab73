"""Hand a student on: a folder with its recipe, its weights in three forms, its preprocessing and a card.

recipe.yaml           what `raykd train` takes to teach it again
student.safetensors   weights, under the names of raykd's nets
student.pt2           torch.export program: images -> logits, any batch; needs torch alone
student.onnx          the same for ONNX runtimes
preprocessing.json    how an image becomes an input, and the classes; also inside the three forms
provenance.json       program, machine, seed and teacher of the training
README.md             the card
"""

import json
from pathlib import Path

import safetensors.torch

from raykd import data
from raykd.export import card, programs
from raykd.export.choice import choose_student, make_export_recipe
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.store.run_files import RunFiles
from raykd.training.student import describe_preprocessing, load_net


def export(
    run_files: RunFiles, out: Path, number: int | None = None, root: Path | None = None
) -> dict[str, str]:
    """Write a run's student into `out`: that of trial `number`, or the study's result (choice.py). Returns
    what was left out, and why: {file: reason}.

    Both programs are compared with the PyTorch net on real training images; one that differs is not written.
    `root`: where data sets lie. UserError: no such trial, its student was not kept, or its data set is not
    there.
    """
    choice, root = choose_student(run_files, number), root or data.default_root()
    recipe = choice.recipe
    dataset = data.load(recipe.data, root, False)
    preprocessing_values = describe_preprocessing(recipe.data, dataset)
    net = load_net(recipe, choice.folder, len(dataset.classes), dataset.size)
    out.mkdir(parents=True, exist_ok=True)
    Folder(str(out)).write_yaml(file_names.RECIPE, make_export_recipe(choice, root).to_dict())
    (out / file_names.PROVENANCE).write_bytes(choice.folder.read(file_names.PROVENANCE))
    metadata = {"net": recipe.student.net, "preprocessing": json.dumps(preprocessing_values)}
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    (out / file_names.STUDENT).write_bytes(safetensors.torch.save(weights, {"format": "pt"} | metadata))
    (out / file_names.PREPROCESSING).write_text(json.dumps(preprocessing_values, indent=1) + "\n")
    checks = programs.write_programs(net, programs.take_training_images(recipe.data, dataset), metadata, out)
    (out / "README.md").write_text(card.render_card(run_files, choice, dataset, checks, root))
    return {name: check.message for name, check in checks.items() if not check.is_written}
