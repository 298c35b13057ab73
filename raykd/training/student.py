"""A trained student as files, in a trial's folder or an export: recipe, weights, preprocessing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from raykd import models
from raykd.batch import Triple
from raykd.data import Dataset, DataSpec
from raykd.errors import UserError, first_line, validate
from raykd.store import file_names
from raykd.store.folder import Folder, join_uri
from raykd.store.plugin_copies import require_plugins
from raykd.study.recipe import Recipe
from raykd.study.yaml_file import parse_settings
from raykd.training import distiller


@dataclass(frozen=True)
class TrainedStudent:
    """A net as it is deployed, in float32 on the CPU, and what is known of it."""

    net: distiller.DeployedStudent  # images [n, 3, size, size] -> Outputs; in evaluation mode
    recipe: Recipe
    preprocessing: dict[str, Any]

    @property
    def statistics(self) -> tuple[Triple, Triple]:
        """Mean and deviation of the channels by which its images are normalised."""
        mean, std = (tuple(self.preprocessing[name]) for name in ("mean", "std"))
        return mean, std

    @property
    def size(self) -> int:
        """Pixels of a side of the images that it was trained on."""
        return int(self.preprocessing["size"])

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        names: list[str] = self.preprocessing["classes"]
        return names


def describe_preprocessing(spec: DataSpec, dataset: Dataset[Any]) -> dict[str, Any]:
    """Returns what an image must go through before a net of this data set, and what its logits mean."""
    return {
        "layout": "NCHW",
        "channels": "RGB",
        "dtype": "float32",
        "size": dataset.size,
        "resize": spec.resize_side(dataset.size),
        "steps": "resize the shorter side to `resize` (bilinear, antialias), take the centre of size x size, "
        "divide by 255, subtract `mean`, divide by `std`",
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "classes": list(dataset.classes),
    }


def load(location: str | Folder) -> TrainedStudent:
    """Returns the student of an export or a trial's folder. UserError names a missing or wrong file."""
    folder = location if isinstance(location, Folder) else Folder(location)
    for name in (file_names.RECIPE, file_names.STUDENT, file_names.PREPROCESSING):
        if not folder.exists(name):
            raise UserError([f"{folder.uri}: no {name}. A student is an export, or a trial that was kept"])
    values = folder.read_json(file_names.PREPROCESSING)
    if not isinstance(values, dict) or not {"size", "classes", "mean", "std"} <= values.keys():
        raise UserError([f"{folder.uri}/{file_names.PREPROCESSING}: torn, or not of a student"])
    run = folder.parent.parent  # of a trial; an export holds its own copies
    require_plugins(run if run.exists(file_names.STUDY) else folder)
    recipe = read_recipe(folder)
    net = load_net(recipe, folder, len(values["classes"]), values["size"])
    student = TrainedStudent(net, recipe, values)
    net.set_input_statistics(*student.statistics)
    return student


def read_recipe(folder: Folder) -> Recipe:
    """Returns the recipe of a trial or an export. UserError when it is not one."""
    place = join_uri(folder.uri, file_names.RECIPE)
    return validate(Recipe, parse_settings(folder.read(file_names.RECIPE), place), place)


def load_net(recipe: Recipe, folder: Folder, classes: int, size: int) -> distiller.DeployedStudent:
    """Returns the deployed net with the folder's weights. UserError when they are not of the recipe's net."""
    try:
        weights = safetensors.torch.load(folder.read(file_names.STUDENT))
        return build_deployed(recipe, weights, classes, size)
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = f"not the weights of {recipe.student.net} ({first_line(error)})"
        raise UserError([f"{folder.uri}/{file_names.STUDENT}: {reason}"]) from None


def build_deployed(
    recipe: Recipe, weights: Mapping[str, Tensor], classes: int, size: int
) -> distiller.DeployedStudent:
    """Returns the student, its method's deploy_head, if any, and the weights in it. RuntimeError: no fit."""
    built = distiller.build_on_meta(recipe, classes, size, 1)  # one image: banks are not deployed
    net = models.merge_members(built.deployed_student())
    net.load_state_dict(weights, assign=True)
    return net.requires_grad_(False).eval()
