"""raykd/methods/published.json: top-1 accuracies as printed, without any that was quoted from memory."""

import json
from pathlib import Path

from raykd import methods, models


def test_published_numbers_have_a_method_a_pair_and_a_source() -> None:
    rows = json.loads((Path(methods.__path__[0]) / "published.json").read_text())
    known = {"ResNet34", "ResNet18", "MobileNetV1", "wrn_28_4", *models.names()}
    seen = set()
    for row in rows:
        assert set(row) == {"data", "system", "method", "source", "top1"}
        assert row["method"] is None or row["method"] in {*methods.names(), "pckd", "wcord"}
        assert row["source"] and row["system"] and row["data"].split(" -> ")[0] in ("cifar100", "imagenet")
        assert row["top1"] and "MEMORY" not in row["source"]
        for pair, values in row["top1"].items():
            teacher, student = pair.split(" -> ")
            assert teacher in known and student in known and values
            assert all(isinstance(v, float) and 30 < v < 90 for v in values)
            key = (row["data"], row["system"], row["source"], pair)
            assert key not in seen
            seen.add(key)
    assert len(seen) > 200
