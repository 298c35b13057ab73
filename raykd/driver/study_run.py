"""A study and the files of its run; and in a comparison several of them, which share a cluster."""

from pathlib import Path
from typing import NamedTuple

from raykd.driver.job import EventHandler
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

End = tuple[str, str]  # a run's state at the end, and why it stopped


class StudyRun(NamedTuple):
    """A study and its run."""

    study: Study
    run_files: RunFiles

    @property
    def method(self) -> str:
        """The method's name."""
        return self.study.recipe.method.name


class DriveOptions(NamedTuple):
    """What a driver is told beside the studies."""

    address: str | None  # of a Ray cluster; None: the process's session, else one of this machine's own
    data_root: Path  # where data sets lie on the nodes
    download: bool  # whether a missing one may be fetched
    on_event: EventHandler
