"""raykd: hyperparameter studies of contrastive knowledge distillation on Ray.

raykd.Study.read(path)      a study file, checked
raykd.read_study(path)      the same, of one method or of several: a Study or a Comparison
raykd.launch(study)         run it: -> Run
raykd.compare(comparison)   run it: -> {method: Run}
raykd.Run.open(path)        read a run: .trials(), .epochs(), .best(), .export(dir)
raykd.methods.make(name, context)
"""

import importlib
from typing import Any

_LAZY_NAMES = {
    "Run": "raykd.run", "launch": "raykd.run", "compare": "raykd.run", "Study": "raykd.study.study",
    "Comparison": "raykd.study.comparison", "read_study": "raykd.study.comparison",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imported on first use: `import raykd` is quick, and torch and Ray are loaded when they are needed."""
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
    if name in ("methods", "models", "data"):
        return importlib.import_module(f"raykd.{name}")
    raise AttributeError(f"module 'raykd' has no attribute '{name}'")
