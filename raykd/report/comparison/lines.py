"""Runs side by side: one table a teacher/student pair and data set, one line a recipe that was confirmed.

Like is compared with like: a searched recipe with searched KD where there is such a run under the same
budget, else with KD at its paper's point; a paper's point with KD at its paper's point. Same budget: the
recipes agree in all but the method, and for two searches the study's budget too. Differences are paired by
seed; p values are corrected by Holm over all tests of one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from raykd.report.rows.study_file import printed, settings
from raykd.report.rows.types import PublishedRow, RunData, accuracy
from raykd.report.stats import tests
from raykd.spec import Scalar

What = Literal["searched", "paper's point"]
Conditions = tuple[tuple[str, Scalar | None], ...]
KD, CE = "kd", "ce"
RETRAINED_ANEW = (
    "recipe/data/holdout",
    "recipe/data/split_seed",
    "recipe/seed",
)  # the retraining has its own


@dataclass(frozen=True)
class Against:
    """A difference by seed from another line of the table."""

    line: str
    difference: tests.Paired
    p: float | None = None  # corrected


@dataclass(frozen=True)
class Line:
    """One recipe: a method's searched one, or one at the paper's point (as controls are)."""

    run: str  # where it comes from
    method: str
    plus_kd: bool
    what: What
    seeds: dict[int, float]  # test accuracy of each seed
    held_out: float | None  # of the trial
    training: float  # device-hours of one retraining
    search: float | None  # device-hours of the search behind it
    conditions: Conditions = ()  # of its retraining
    budget: Conditions = ()  # of its search
    settings: Conditions = ()  # of the method at the paper's point
    published: Sequence[PublishedRow] = ()
    named: bool = False  # after its run, too: other runs have a line of the same name
    from_kd: Against | None = None
    from_paper: Against | None = None

    @property
    def name(self) -> str:
        return f"{self.method}{' + KD' if self.plus_kd else ''}, {self.what}"

    @property
    def place(self) -> str:
        """The name, and the run where there may be several."""
        return f"{self.name} ({self.run})" if self.named else self.name

    def mean(self) -> tests.Mean | None:
        return tests.mean_interval(list(self.seeds.values())) if self.seeds else None


@dataclass(frozen=True)
class Table:
    """The lines of one teacher/student pair on one data set."""

    dataset: str
    teacher: str
    student: str
    runs: Sequence[RunData]
    lines: Sequence[Line] = field(default_factory=tuple)
    tests: int = 0  # how many p values were corrected together

    @property
    def title(self) -> str:
        return f"{self.teacher} → {self.student} on {self.dataset}"


def tables(runs: Sequence[RunData]) -> list[Table]:
    """The tables in the order of their first runs."""
    groups: dict[tuple[str, str, str], list[RunData]] = {}
    for run in runs:
        groups.setdefault((run.dataset, run.teacher, run.student), []).append(run)
    return [_compared(Table(*key, runs=of, lines=_lines(of))) for key, of in groups.items()]


def _lines(runs: Sequence[RunData]) -> list[Line]:
    """All lines; what several runs measured of one recipe (a control, say) is one line."""
    merged: dict[tuple[object, ...], Line] = {}
    for line in (line for run in runs for line in _of(run)):
        own = line.run if line.what == "searched" else ""
        key = (own, line.method, line.plus_kd, line.what, line.conditions, line.settings)
        known = merged.get(key)
        merged[key] = line if known is None else replace(known, seeds={**line.seeds, **known.seeds})
    order = {CE: 0, KD: 1}
    lines = sorted(merged.values(), key=lambda line: order.get(line.method, 2))
    names = [line.name for line in lines]
    return [replace(line, named=line.what == "searched" or names.count(line.name) > 1) for line in lines]


def _of(run: RunData) -> list[Line]:
    """The lines of one run: controls, the paper's point, the searched recipe."""
    best, paper = next(iter(run.finished()), None), run.at_paper()
    conditions = _part(run, "recipe/", RETRAINED_ANEW)
    budget = _part(run, "budget/", ()) + conditions
    found = [
        Line(
            run.name, role, False, "paper's point", _seeds(run, role), None, _training(run, role), None,
            conditions, (), settings(role), _printed(run, role, False),
        )
        for role in (CE, KD) if _seeds(run, role)
    ]  # fmt: skip
    kinds: list[tuple[What, str, float | None, float | None]] = [
        ("paper's point", "paper", accuracy(paper) if paper else None, None),
        ("searched", "best", accuracy(best) if best else None, run.hours()),
    ]
    for what, role, held_out, search in kinds:
        found.append(
            Line(
                run.name, run.method, run.plus_kd, what, _seeds(run, role), held_out, _training(run, role),
                search, conditions, budget if search is not None else (), run.settings,
                () if what == "searched" else _printed(run, run.method, run.plus_kd),
            )
        )  # fmt: skip
    return found


def _part(run: RunData, prefix: str, but: Sequence[str]) -> Conditions:
    return tuple((k, v) for k, v in sorted(run.conditions.items()) if k.startswith(prefix) and k not in but)


def _seeds(run: RunData, role: str) -> dict[int, float]:
    return {row.seed: row.accuracy for row in run.confirm if row.role == role}


def _training(run: RunData, role: str) -> float:
    """Device-hours of one retraining, the mean over seeds; 0 where there was none."""
    seconds = [row.seconds for row in run.confirm if row.role == role]
    return sum(seconds) / len(seconds) / 3600 * run.devices if seconds else 0.0


def _printed(run: RunData, method: str, plus_kd: bool) -> list[PublishedRow]:
    return printed(method, plus_kd, run.dataset, run.teacher, run.student)


def _compared(table: Table) -> Table:
    """The table with its differences and their corrected p values."""
    pairs = [(_against(line, _kd(line, table)), _against(line, _paper(line, table))) for line in table.lines]
    chances = [against.difference.p if against else None for pair in pairs for against in pair]
    corrected = iter(tests.holm(chances))
    lines = []
    for line, (from_kd, from_paper) in zip(table.lines, pairs, strict=True):
        kd_p, paper_p = next(corrected), next(corrected)
        lines.append(
            replace(
                line,
                from_kd=from_kd and replace(from_kd, p=kd_p),
                from_paper=from_paper and replace(from_paper, p=paper_p),
            )
        )
    return replace(table, lines=lines, tests=sum(p is not None for p in chances))


def _against(line: Line, other: Line | None) -> Against | None:
    found = tests.paired(line.seeds, other.seeds) if other is not None else None
    return Against(other.place, found) if other is not None and found is not None else None


def _kd(line: Line, table: Table) -> Line | None:
    """The line of KD that this one is compared with; None for KD itself."""
    if line.method == KD:
        return None
    others = [other for other in table.lines if other.method == KD and other.seeds]
    fair = [other for other in others if other.conditions == line.conditions]
    searched = [o for o in fair if line.what == o.what == "searched" and o.budget == line.budget]
    return next(iter([*searched, *(o for o in fair if o.what != "searched")]), None)


def _paper(line: Line, table: Table) -> Line | None:
    """The paper's point of a searched line."""
    if line.what != "searched":
        return None
    same = (line.method, line.plus_kd, line.conditions, line.settings)
    return next(
        (
            other
            for other in table.lines
            if other.what != "searched"
            and (other.method, other.plus_kd, other.conditions, other.settings) == same
        ),
        None,
    )
