"""Runs side by side: one table a teacher/student pair and data set, one row a recipe that was confirmed.

Like is compared with like: a searched recipe with searched KD where there is such a run under the same
budget, else with KD at its paper's point; a paper's point with KD at its paper's point. Same budget: the
recipes agree in all but the method, and for two searches the study's budget too. A recipe that reads no
teacher agrees whatever the teacher is, and a run without a teacher stands in the table of every pair with its
student. Differences are paired by seed; p values are corrected by Holm over all tests of one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from raykd import methods
from raykd.metric import describe_judged
from raykd.report.rows.study_file import find_published, paper_settings
from raykd.report.rows.types import PublishedRow, RunData, get_accuracy
from raykd.report.stats import tests
from raykd.spec import Scalar
from raykd.study.starts import NO_TEACHER

SettingsSource = Literal["searched", "paper's point"]
SettingItems = tuple[tuple[str, Scalar | None], ...]
KD, CE = "kd", "ce"
RETRAINING_SETTINGS = (
    "recipe/data/holdout",
    "recipe/data/split_seed",
    "recipe/seed",
)  # the retraining has its own


@dataclass(frozen=True)
class BaselineDifference:
    """A difference by seed from another recipe of the table, its baseline."""

    baseline: str
    difference: tests.PairedDifference
    p: float | None = None  # corrected


@dataclass(frozen=True)
class RecipeResult:
    """One recipe: a method's searched one, or one at the paper's point (as controls are)."""

    run: str  # where it comes from
    method: str
    plus_kd: bool
    source: SettingsSource
    accuracies: dict[int, float]  # test accuracy of each seed
    held_out_accuracy: float | None  # of the trial
    training_hours: float  # device-hours of one retraining
    search_hours: float | None  # device-hours of the search behind it
    conditions: SettingItems = ()  # of its retraining
    budget: SettingItems = ()  # of its search
    method_settings: SettingItems = ()  # of the method at the paper's point
    published: Sequence[PublishedRow] = ()
    is_run_shown: bool = False  # after its run, too: other runs have a recipe of the same name
    kd_difference: BaselineDifference | None = None
    paper_difference: BaselineDifference | None = None

    @property
    def name(self) -> str:
        """Returns the method, and where its settings come from."""
        return f"{self.method}{' + KD' if self.plus_kd else ''}, {self.source}"

    @property
    def label(self) -> str:
        """Returns the name, and the run where there may be several."""
        return f"{self.name} ({self.run})" if self.is_run_shown else self.name

    def mean_accuracy(self) -> tests.MeanInterval | None:
        """Returns the mean test accuracy over seeds; None where nothing was retrained."""
        return tests.mean_interval(list(self.accuracies.values())) if self.accuracies else None


@dataclass(frozen=True)
class PairTable:
    """The recipes of one teacher/student pair on one data set."""

    dataset: str
    teacher: str
    student: str
    metric: str
    runs: Sequence[RunData]
    results: Sequence[RecipeResult] = field(default_factory=tuple)
    num_tests: int = 0  # how many p values were corrected together

    @property
    def title(self) -> str:
        """Returns the pair and the data set; the metric, if it is not the accuracy."""
        return f"{self.teacher} → {self.student} on {self.dataset}{describe_judged(self.metric)}"


def build_pair_tables(runs: Sequence[RunData]) -> list[PairTable]:
    """Returns the tables in the order of their first runs."""
    groups: dict[tuple[str, str, str, str], list[RunData]] = {}
    for run in runs:
        groups.setdefault((run.dataset, run.teacher, run.student, run.metric), []).append(run)
    for key in [key for key in groups if key[1] == NO_TEACHER]:
        if pairs := [k for k in groups if k[1] != NO_TEACHER and (k[0], *k[2:]) == (key[0], *key[2:])]:
            alone = groups.pop(key)
            groups |= {pair: [*groups[pair], *alone] for pair in pairs}
    return [
        _add_differences(PairTable(*key, runs=pair_runs, results=_merge_results(pair_runs)))
        for key, pair_runs in groups.items()
    ]


def _merge_results(runs: Sequence[RunData]) -> list[RecipeResult]:
    """All results; what several runs measured of one recipe (a control, say) is one result."""
    merged: dict[tuple[object, ...], RecipeResult] = {}
    for result in (result for run in runs for result in _get_run_results(run)):
        own_run = result.run if result.source == "searched" else ""
        key = (
            own_run,
            result.method,
            result.plus_kd,
            result.source,
            result.conditions,
            result.method_settings,
        )
        merged_result = merged.get(key)
        merged[key] = (
            result
            if merged_result is None
            else replace(merged_result, accuracies={**result.accuracies, **merged_result.accuracies})
        )
    order = {CE: 0, KD: 1}
    results = sorted(merged.values(), key=lambda result: order.get(result.method, 2))
    names = [result.name for result in results]
    return [
        replace(result, is_run_shown=result.source == "searched" or names.count(result.name) > 1)
        for result in results
    ]


def _get_run_results(run: RunData) -> list[RecipeResult]:
    """The results of one run: controls, the paper's point, the searched recipe."""
    best, paper = next(iter(run.complete_trials()), None), run.paper_trial()
    settings = _select_settings(run, "recipe/", RETRAINING_SETTINGS)
    conditions = _drop_unread(settings, run.method, run.plus_kd)
    budget = _select_settings(run, "budget/", ()) + conditions
    results = [
        RecipeResult(
            run.name, role, False, "paper's point", _get_accuracies(run, role), None,
            _get_training_hours(run, role), None, _drop_unread(settings, role, False), (),
            paper_settings(role),
            _find_published(run, role, False),
        )
        for role in (CE, KD) if _get_accuracies(run, role)
    ]  # fmt: skip
    kinds: list[tuple[SettingsSource, str, float | None, float | None]] = [
        ("paper's point", "paper", get_accuracy(paper) if paper else None, None),
        ("searched", "best", get_accuracy(best) if best else None, run.search_hours()),
    ]
    for source, role, held_out_accuracy, search_hours in kinds:
        results.append(
            RecipeResult(
                run.name, run.method, run.plus_kd, source, _get_accuracies(run, role), held_out_accuracy,
                _get_training_hours(run, role), search_hours, conditions,
                budget if search_hours is not None else (), run.method_settings,
                () if source == "searched" else _find_published(run, run.method, run.plus_kd),
            )
        )  # fmt: skip
    return results


def _select_settings(run: RunData, prefix: str, excluded: Sequence[str]) -> SettingItems:
    return tuple(
        (k, v) for k, v in sorted(run.conditions.items()) if k.startswith(prefix) and k not in excluded
    )


def _drop_unread(settings: SettingItems, method: str, plus_kd: bool) -> SettingItems:
    """The settings less those of the teacher where the method reads none."""
    if plus_kd or method not in methods.names() or methods.get_class(method).needs:
        return settings
    return tuple((path, value) for path, value in settings if not path.startswith("recipe/teacher"))


def _get_accuracies(run: RunData, role: str) -> dict[int, float]:
    return {row.seed: row.accuracy for row in run.confirmations if row.role == role}


def _get_training_hours(run: RunData, role: str) -> float:
    """Device-hours of one retraining, the mean over seeds; 0 where there was none."""
    seconds = [row.seconds for row in run.confirmations if row.role == role]
    return sum(seconds) / len(seconds) / 3600 * run.retraining_devices if seconds else 0.0


def _find_published(run: RunData, method: str, plus_kd: bool) -> list[PublishedRow]:
    if run.metric != "accuracy":
        return []  # they are top-1
    return find_published(method, plus_kd, run.dataset, run.teacher, run.student)


def _add_differences(table: PairTable) -> PairTable:
    """The table with its differences and their corrected p values."""
    pairs = [
        (
            _compare_with(result, _find_kd_baseline(result, table)),
            _compare_with(result, _find_paper_baseline(result, table)),
        )
        for result in table.results
    ]
    p_values = [difference.difference.p if difference else None for pair in pairs for difference in pair]
    corrected_p_values = iter(tests.holm(p_values))
    results = []
    for result, (kd_difference, paper_difference) in zip(table.results, pairs, strict=True):
        kd_p, paper_p = next(corrected_p_values), next(corrected_p_values)
        results.append(
            replace(
                result,
                kd_difference=kd_difference and replace(kd_difference, p=kd_p),
                paper_difference=paper_difference and replace(paper_difference, p=paper_p),
            )
        )
    return replace(table, results=results, num_tests=sum(p is not None for p in p_values))


def _compare_with(result: RecipeResult, baseline: RecipeResult | None) -> BaselineDifference | None:
    paired_difference = (
        tests.paired_t_test(result.accuracies, baseline.accuracies) if baseline is not None else None
    )
    return (
        BaselineDifference(baseline.label, paired_difference)
        if baseline is not None and paired_difference is not None
        else None
    )


def _find_kd_baseline(result: RecipeResult, table: PairTable) -> RecipeResult | None:
    """The KD result that this one is compared with; None for KD itself."""
    if result.method == KD:
        return None

    def read_by_result(settings: SettingItems) -> SettingItems:
        return _drop_unread(settings, result.method, result.plus_kd)

    others = [other for other in table.results if other.method == KD and other.accuracies]
    comparable = [other for other in others if read_by_result(other.conditions) == result.conditions]
    searched_too = [
        o
        for o in comparable
        if result.source == o.source == "searched" and read_by_result(o.budget) == result.budget
    ]
    return next(iter([*searched_too, *(o for o in comparable if o.source != "searched")]), None)


def _find_paper_baseline(result: RecipeResult, table: PairTable) -> RecipeResult | None:
    """The paper's point of a searched result."""
    if result.source != "searched":
        return None
    method_key = (result.method, result.plus_kd, result.conditions, result.method_settings)
    return next(
        (
            other
            for other in table.results
            if other.source != "searched"
            and (other.method, other.plus_kd, other.conditions, other.method_settings) == method_key
        ),
        None,
    )
