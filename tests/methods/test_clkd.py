"""CLKD: definitions written in loops (tests/methods/test_methods.py holds the contract)."""

import math

import torch
from torch.testing import assert_close

from raykd import methods
from raykd.contract.synthetic_batch import CONTEXT, make_batch

Rows = list[list[float]]


def unit_rows(rows: Rows) -> Rows:
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]


def squared_error(one: Rows, two: Rows) -> float:
    pairs = [(a, b) for p, q in zip(one, two, strict=True) for a, b in zip(p, q, strict=True)]
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def correlation(rows: Rows, i: int, j: int) -> float:
    means = [sum(row) / len(row) for row in rows]
    products = [(row[i] - m) * (row[j] - m) for row, m in zip(rows, means, strict=True)]
    return sum(products) / (len(rows[0]) - 1)


def test_clkds_terms_are_those_of_loops() -> None:
    batch = make_batch()
    student, teacher = batch.student.logits.tolist(), batch.teacher.logits.tolist()
    columns = [[list(column) for column in zip(*rows, strict=True)] for rows in (student, teacher)]
    classes = range(len(student[0]))
    squares = [
        (correlation(student, i, j) - correlation(teacher, i, j)) ** 2 for i in classes for j in classes
    ]
    expected = {
        "instance": squared_error(unit_rows(student), unit_rows(teacher)),
        "category": squared_error(unit_rows(columns[0]), unit_rows(columns[1])),
        "correlation": math.sqrt(sum(squares)) / len(classes) ** 2,
    }
    terms = methods.make("clkd", CONTEXT)(batch)
    assert_close(terms, {name: torch.tensor(value) for name, value in expected.items()}, rtol=1e-4, atol=1e-6)
