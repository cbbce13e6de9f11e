import torch

from sklearn_flows._workspace import Workspace, empty


def test_each_round_uses_the_memory_of_the_one_before():
    workspace, like = Workspace(), torch.empty(0)
    pointers = []
    for n_rows in (5, 4, 5):  # batches differ by a row
        with workspace.round():
            tensors = [empty((3, n_rows), like), empty((n_rows,), like)]
        assert [t.shape for t in tensors] == [(3, n_rows), (n_rows,)]
        pointers.append([t.data_ptr() for t in tensors])
    assert pointers[0] == pointers[1] == pointers[2]
    assert len(set(pointers[0])) == 2


def test_memory_grows_and_changes_its_kind_on_request():
    workspace = Workspace()
    for shape, dtype in [((2, 3), torch.float32), ((20, 3), torch.float32), ((2,), torch.float64)]:
        with workspace.round():
            tensor = empty(shape, torch.empty(0, dtype=dtype))
            assert tensor.shape == shape
            assert tensor.dtype == dtype


def test_outside_of_a_round_memory_is_new():
    like = torch.empty(0)
    with Workspace().round():
        inside = empty((4,), like)
    first, second = empty((4,), like), empty((4,), like)
    assert len({t.data_ptr() for t in (inside, first, second)}) == 3
