"""Hand a student on: a folder with its recipe, its weights in three forms, its preprocessing and a card.

recipe.yaml           what `raykd train` takes to train it again
student.safetensors   weights, under the names of raykd's nets
student.pt2           torch.export program: images -> logits, any batch; needs torch alone
student.onnx          the same for ONNX runtimes
student.int8.onnx     likewise in int8, where it is asked for (quantized.py)
preprocessing.json    how an image becomes an input, and the classes; also inside the three forms
plugins/*.py          copies of the plugin files of the study, if any
provenance.json       program, machine, seed and teacher of the training
README.md             the card
"""

import json
from pathlib import Path

import safetensors.torch

from raykd import data
from raykd.errors import UserError
from raykd.export import card, programs, quantized
from raykd.export.choice import choose_student, make_export_recipe
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.store.plugin_copies import require_plugins, write_copies
from raykd.store.run_files import RunFiles
from raykd.study.recipe import Recipe
from raykd.training.student import describe_preprocessing, load_net, read_recipe

CARD = "README.md"


def is_export(folder: Folder, recipe: Recipe) -> bool:
    """Returns whether a folder is an export, whole or begun, of the student of this recipe."""
    if not folder.exists(file_names.RECIPE):
        return False
    try:
        is_same = read_recipe(folder) == recipe
    except UserError:
        return False
    title = card.format_title(recipe).encode()
    return is_same and (not folder.exists(CARD) or folder.read(CARD).startswith(title))


def export(
    run_files: RunFiles, out: Path, number: int | None = None, root: Path | None = None, int8: bool = False
) -> dict[str, str]:
    """Writes a run's student into `out`, and returns what was left out and why: {file: reason}.

    The student of trial `number`, or the study's result (choice.py). Both programs are compared with the
    PyTorch net on real training images; one that differs is not written. `root`: where data sets lie.
    `int8`: whether an ONNX program in int8 is added.

    Raises:
        UserError: There is no such trial, its student was not kept, its data set is not there, or `out` holds
            files that are no earlier export of this student.
    """
    require_plugins(run_files.folder)
    choice, root = choose_student(run_files, number), root or data.default_root()
    recipe, export_recipe, folder = choice.recipe, make_export_recipe(choice), Folder(str(out))
    if folder.uri != (run_files.folder / file_names.EXPORT).uri:  # there the study's result may change
        folder.reject_foreign_files(is_export(folder, export_recipe), "export of this student")
    dataset = data.load(recipe.data, root, False)
    preprocessing_values = describe_preprocessing(recipe.data, dataset)
    net = load_net(recipe, choice.folder, len(dataset.classes), dataset.size)
    net.set_input_statistics(dataset.mean, dataset.std)
    out.mkdir(parents=True, exist_ok=True)
    folder.write_yaml(file_names.RECIPE, export_recipe.to_dict())
    write_copies(folder)
    (out / file_names.PROVENANCE).write_bytes(choice.folder.read(file_names.PROVENANCE))
    metadata = {"net": recipe.student.net, "preprocessing": json.dumps(preprocessing_values)}
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    (out / file_names.STUDENT).write_bytes(safetensors.torch.save(weights, {"format": "pt"} | metadata))
    (out / file_names.PREPROCESSING).write_text(json.dumps(preprocessing_values, indent=1) + "\n")
    checks = programs.write_programs(net, programs.take_training_images(recipe.data, dataset), metadata, out)
    (out / quantized.INT8).unlink(missing_ok=True)
    if int8:
        checks[quantized.INT8] = (
            quantized.write_quantized(choice, dataset, out)
            if checks[programs.ONNX].is_written
            else checks[programs.ONNX]
        )
    (out / CARD).write_text(card.render_card(run_files, choice, dataset, checks), encoding="utf-8")
    return {name: check.message for name, check in checks.items() if not check.is_written}
