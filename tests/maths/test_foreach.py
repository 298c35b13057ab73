"""Operations on many tensors, by private names of torch: fails when torch changes them."""

import torch

from raykd.maths.foreach import add_to_each, clone_each, copy_to_each


def test_many_tensors_are_each_as_one() -> None:
    tensors = [torch.ones(2), torch.full((), 3.0), torch.zeros(2, 2, dtype=torch.int64)]
    copies = clone_each(tensors)
    add_to_each(tensors, 2)
    add_to_each(tensors[:2], [torch.tensor([1.0, 2.0]), torch.tensor(3.0)])
    assert [x.tolist() for x in tensors] == [[4.0, 5.0], 8.0, [[2, 2], [2, 2]]]
    assert [x.tolist() for x in copies] == [[1.0, 1.0], 3.0, [[0, 0], [0, 0]]]
    copy_to_each(copies, [tensors[0].to(torch.bfloat16), *tensors[1:]])
    assert all(map(torch.equal, copies, tensors)) and clone_each([]) == []
