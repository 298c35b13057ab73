"""Where a run's Optuna study lies: in the run's journal, or in the database that its study names."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from raykd.driver.optuna_journal import StoredJournal, TransactionalJournal, truncate_torn_entry
from raykd.errors import UserError, first_line
from raykd.store import file_names
from raykd.store.folder import join_uri
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

Transaction = Callable[[], AbstractContextManager[None]]


def describe_place(study: Study, run_files: RunFiles) -> str:
    """Returns the database or the file in which a run's Optuna study lies."""
    return study.search.storage or join_uri(run_files.folder.uri, file_names.JOURNAL)


def open_storage(study: Study, run_files: RunFiles) -> tuple[BaseStorage, Transaction]:
    """Returns Optuna's storage of a run, and the context manager whose block is written whole or not at all.

    A database has none: of a driver that is killed in the middle of such a block it keeps a part.

    Raises:
        UserError: It cannot be opened, or holds something else.
    """
    if study.search.storage is not None:
        try:
            return RDBStorage(study.search.storage), nullcontext
        except Exception as error:  # whatever the database's driver raises
            raise UserError([f"search/storage: {type(error).__name__}: {first_line(error)}"]) from None
    journal = TransactionalJournal(_open_journal(run_files))
    try:
        return JournalStorage(journal), journal.transaction
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        place = describe_place(study, run_files)
        raise UserError(
            [f"{place}: damaged, or no journal of Optuna ({type(error).__name__}: {first_line(error)})"]
        ) from None


def _open_journal(run_files: RunFiles) -> BaseJournalBackend:
    path = run_files.journal_path()
    if path is None:
        return StoredJournal(run_files.folder / file_names.JOURNAL)
    path.with_name(path.name + ".lock").unlink(missing_ok=True)  # a dead driver's: this one holds the lock
    return JournalFileBackend(str(truncate_torn_entry(path)))


class TrialStorage:
    """The trials of one Optuna study in its storage, by their numbers."""

    def __init__(self, storage: BaseStorage, study_name: str, transaction: Transaction) -> None:
        self._storage, self.transaction = storage, transaction
        self._study_id = storage.get_study_id_from_name(study_name)

    def get(self, number: int) -> FrozenTrial:
        """Returns a trial as it stands in the storage."""
        return self._storage.get_trial(self._get_id(number))

    def set_value(self, number: int, epoch: int, score: float) -> None:
        """Writes a trial's metric (%) at an epoch, as Optuna's intermediate value of that step."""
        self._storage.set_trial_intermediate_value(self._get_id(number), epoch, score)

    def set_user_attr(self, number: int, key: str, value: Any) -> None:
        """Writes a user attribute of a trial."""
        self._storage.set_trial_user_attr(self._get_id(number), key, value)

    def return_to_queue(self, number: int) -> None:
        """Makes a running trial a waiting one again, which `Study.ask` hands out before it makes another."""
        self._storage.set_trial_state_values(self._get_id(number), TrialState.WAITING)

    def _get_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
