"""What a sampler makes nothing of is said before the study is run."""

import pytest

from raykd.study.search_warnings import list_search_warnings
from raykd.study.study import Study

RECIPE = {
    "data": {"name": "digits"},
    "teacher": {"net": "resnet14", "weights": "t.pth"},
    "student": {"net": "resnet8"},
}


def list_warnings(sampler: str, pruner: str = "halving", method: str = "kd") -> list[str]:
    recipe = RECIPE | {"method": {"name": method}}
    search = {"sampler": {"kind": sampler}, "pruner": {"kind": pruner}}
    space = {"optimizer/nesterov": {"choices": [True, False]}}
    return list_search_warnings(
        Study.parse({"name": "s", "recipe": recipe, "search": search, "space": space}, "s")
    )


@pytest.mark.parametrize("sampler", ["tpe", "rungs_gp", "qmc", "random"])
def test_of_some_there_is_nothing_to_say(sampler: str) -> None:
    assert list_warnings(sampler) == [] and list_warnings(sampler, method="sdd") == []


def test_negatives_for_each_sample_are_slow_on_a_gpu() -> None:
    def list_lines(sampling: str) -> list[str]:
        recipe = RECIPE | {"method": {"name": "crd", "sampling": sampling}}
        return list_search_warnings(Study.parse({"name": "s", "recipe": recipe}, "s"))

    (line,) = list_lines("per_sample")
    assert "method/sampling: per_sample takes about 17,088 launches of a GPU a step" in line
    assert list_lines("shared") == []


def test_each_limit_is_said_in_one_line() -> None:
    complete = "learns from complete trials alone, not from those that search/pruner stops"
    conditional = "draws at random method/divergence/non_target, method/divergence/warm_up"
    end = "; tpe learns from all"
    assert list_warnings("gp") == [f"search/sampler: gp {complete}{end}"]
    assert list_warnings("gp", pruner="none") == []
    assert list_warnings("gp", method="sdd") == [f"search/sampler: gp {complete}, and {conditional}{end}"]
    few = "learns after each 20 trials only: 1 times in 30"
    assert list_warnings("nsga2") == [f"search/sampler: nsga2 {complete}, and {few}{end}"]
    few = "learns after each 8 trials only: 3 times in 30"
    assert list_warnings("cmaes") == [
        f"search/sampler: cmaes {few}, and draws at random method/standardize, optimizer/nesterov{end}"
    ]
    (line,) = list_warnings("cmaes", method="sdd")
    assert complete in line and "method/divergence/warm_up" in line and "optimizer/nesterov" in line
