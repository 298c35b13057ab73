"""A taught student as files: recipe.yaml, student.safetensors, preprocessing.json, in a trial's folder or an
export.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from ruamel.yaml import YAML
from torch import Tensor, nn

from raykd.data import Dataset, DataSpec
from raykd.errors import BadInput, checked
from raykd.store.folder import Folder
from raykd.study.recipe import Recipe
from raykd.training import distiller

WEIGHTS = "student.safetensors"
PREPROCESSING = "preprocessing.json"


@dataclass(frozen=True)
class Student:
    """A net as it is deployed, in float32 on the CPU, and what is known of it."""

    net: nn.Module  # images [n, 3, size, size] -> View; in evaluation mode
    recipe: Recipe
    preprocessing: dict[str, Any]

    @property
    def size(self) -> int:
        """Pixels of a side of the images that it was taught on."""
        return int(self.preprocessing["size"])

    @property
    def classes(self) -> list[str]:
        names: list[str] = self.preprocessing["classes"]
        return names


def preprocessing(spec: DataSpec, dataset: Dataset[Any]) -> dict[str, Any]:
    """What an image must go through before a net of this data set sees it, and what its answers mean."""
    return {
        "layout": "NCHW",
        "channels": "RGB",
        "dtype": "float32",
        "size": dataset.size,
        "resize": spec.shorter(dataset.size),
        "steps": "resize the shorter side to `resize` (bilinear, antialias), take the centre of size x size, "
        "divide by 255, subtract `mean`, divide by `std`",
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "classes": list(dataset.classes),
    }


def load(folder: str | Folder) -> Student:
    """The student of an export or of a trial's folder. BadInput names the file that is missing or wrong."""
    there = folder if isinstance(folder, Folder) else Folder(folder)
    for name in ("recipe.yaml", WEIGHTS, PREPROCESSING):
        if not there.exists(name):
            raise BadInput([f"{there.uri}: no {name}. A student is an export, or a trial that was kept"])
    known = there.read_json(PREPROCESSING)
    if not isinstance(known, dict) or not {"size", "classes", "mean", "std"} <= known.keys():
        raise BadInput([f"{there.uri}/{PREPROCESSING}: torn, or not of a student"])
    recipe = recipe_of(there)
    return Student(built(recipe, there, len(known["classes"]), known["size"]), recipe, known)


def recipe_of(folder: Folder) -> Recipe:
    """BadInput when the folder's recipe is not one."""
    plain = YAML(typ="safe", pure=True).load(folder.read("recipe.yaml").decode())
    return checked(Recipe, plain, f"{folder.uri}/recipe.yaml")


def built(recipe: Recipe, folder: Folder, classes: int, size: int) -> nn.Module:
    """The deployed net with the folder's weights. BadInput when they are not those of the recipe's net."""
    try:
        weights = safetensors.torch.load(folder.read(WEIGHTS))
        return deployed(recipe, weights, classes, size)
    except (safetensors.SafetensorError, RuntimeError) as error:
        why = f"not the weights of {recipe.student.net} ({str(error).splitlines()[0]})"
        raise BadInput([f"{folder.uri}/{WEIGHTS}: {why}"]) from None


def deployed(recipe: Recipe, weights: Mapping[str, Tensor], classes: int, size: int) -> nn.Module:
    """The student, with its method's tail if it has one, and these weights. RuntimeError: they do not fit."""
    net = distiller.check(recipe, classes, size, 1).deployed()  # one image: banks are not deployed
    net.load_state_dict(weights, assign=True)
    return net.requires_grad_(False).eval()
