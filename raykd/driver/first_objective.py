"""The one place that uses Optuna beside its public ways: a subclass of its Study.

Why: Optuna refuses pruners and intermediate values where there are several objectives, and `load_study` makes
no other class than Study (tests/driver/test_search.py fails when that changes).
"""

import optuna
from optuna.study import StudyDirection


class FirstObjectiveStudy(optuna.Study):
    """An Optuna study that ranks pruned trials, and prunes, by its first objective: the accuracy."""

    @property
    def direction(self) -> StudyDirection:
        """Returns the direction of the first objective."""
        return StudyDirection.MAXIMIZE
