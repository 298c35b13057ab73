"""The names of the files and folders that a run leaves in its storage; no other module writes them out.

RUN/study.yaml                   the study; its budget may grow
RUN/provenance.json              by what program and on what machine it was started
RUN/state.json                   "running", "finished", ... as the driver last wrote
RUN/driver.lock                  who drives it now
RUN/session.json                 what the driver's Ray session leaves if it is killed (driver/leftovers.py)
RUN/resources.json               the CPUs and GPUs of a worker that `auto` became at the last launch
RUN/students.json               what the student nets of the space cost, where the study has constraints
RUN/plugins/*.py                 copies of the plugin files that it was begun with, which it runs
RUN/identity.json                a random word, which its Optuna study bears, too (driver/optuna_check.py)
RUN/optuna.journal               the search's memory (Optuna's JournalStorage); on an object store a folder
                                 of segments (driver/optuna_journal.py)
RUN/trials/00007/recipe.yaml     everything that decides the trial, written before its first step
                 trial.json      number, role, params, state, reason, times    (the driver writes)
                 provenance.json, environment.json   by what program; the precision and the kind of device
                                                                                     (the trial writes)
                 preprocessing.json   how an image becomes an input, the classes     (the trial writes)
                 epochs.json     one row an epoch                                    (the trial writes)
                 failure.json    what went wrong in the trial                        (the trial writes)
                 unreadable.json images that others stood in for, if any             (the trial writes)
                 checkpoint.pt, banks.pt   while it goes on; student.safetensors afterwards
RUN/teacher/                     the same files while the study trains its teacher
RUN/teacher-<i>/                 likewise for each of several teachers
RUN/confirm/<role>-seed<k>/      the same files for each retraining on the full training set, and
                 analysis.json   what the student is like beyond its accuracy (training/analysis.py)
RUN/report/, RUN/export/         the page and the exported student
COMPARISON/study.yaml            a study of several methods; state.json, driver.lock and report/ as above
COMPARISON/methods.json          their names, which make it a comparison
COMPARISON/<method>/             the run of each
STORAGE/teachers/<net>-<hash>.safetensors    trained by studies, shared by the runs beside them
"""

# of a run
STUDY, STATE, LOCK, JOURNAL = "study.yaml", "state.json", "driver.lock", "optuna.journal"
IDENTITY, PLUGINS = "identity.json", "plugins"
TRIALS, CONFIRM, TEACHER, REPORT, EXPORT = "trials", "confirm", "teacher", "report", "export"
SESSION, RESOURCES, METHODS, STUDENTS = "session.json", "resources.json", "methods.json", "students.json"
TEACHERS = "teachers"  # beside the runs of a storage

# of a trial, a retraining, a teacher's training or an exported student; PROVENANCE is of a run too
TRIAL, RECIPE, PROVENANCE, ENVIRONMENT = "trial.json", "recipe.yaml", "provenance.json", "environment.json"
PREPROCESSING, EPOCHS, FAILURE = "preprocessing.json", "epochs.json", "failure.json"
UNREADABLE, ANALYSIS, TRANSFER = "unreadable.json", "analysis.json", "transfer.json"
CHECKPOINT, BANKS, STUDENT = "checkpoint.pt", "banks.pt", "student.safetensors"


def list_teacher_folders(count: int) -> list[str]:
    """Returns the names of the folders in which so many teachers are trained."""
    return [f"{TEACHER}-{number}" for number in range(count)]
