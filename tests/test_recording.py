"""What a function does with PyTorch's tensors is recorded once, and repeated as it was."""

import pytest

from bert4x.layers.recording import RECORDS, Recorded

torch = pytest.importorskip("torch")


def runs_of(function, *calls) -> int:
    """How often a recorded function was run for calls, each of which gives what the function itself gives."""
    runs = 0

    def counted(*args):
        nonlocal runs
        runs += 1
        return function(*args)

    recorded = Recorded(counted)
    for args in calls:
        expected, found = function(*args), recorded(*args)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    return runs


def test_equals_the_function():
    def function(values, index, options):
        x, y = values
        parts = torch.split(x, 2, dim=1)  # several results
        best = parts[0].max(dim=1)  # a named tuple
        x = x.clone()
        x[:, 1:] += y[..., None, :2].sum()  # in place, on a part
        x[0] = index * 2.5
        scaled = torch.nn.functional.layer_norm(x.to(torch.float32).T, (x.shape[0],)) * options["factor"]
        return {
            "a": scaled,
            "b": (best.values, best.indices),
            "c": [y, index],
            "inf": x.masked_fill(x > 0, float("inf")),
        }

    def call(seed, rows):
        random = torch.Generator().manual_seed(seed)
        values = (torch.randn(rows, 4, generator=random), torch.randn(3, 3, generator=random))
        return values, torch.tensor(seed), {"factor": 2.0}

    assert runs_of(function, call(0, 2), call(1, 2), call(2, 5), call(3, 2), call(4, 5)) == 2
    more = call(5, 2)
    assert runs_of(function, more, (*more[:2], {"factor": 3.0})) == 2  # what is no tensor counts, too


def test_one_tensor_given_twice_is_no_record_for_two():
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 7.0])
    assert runs_of(lambda x, y: x - y, (one, one), (one, other), (other, one), (other, other)) == 3


def test_other_strides_are_another_record():
    def function(x):
        return x.contiguous().view(-1) if x.is_contiguous() else x.reshape(-1) * 2

    square = torch.arange(9.0).view(3, 3)
    assert runs_of(function, (square,), (square.T,), (square + 1,), (square.T + 1,)) == 2


def test_variables_have_the_values_of_the_moment():
    weight = torch.nn.Parameter(torch.ones(3))
    recorded = Recorded(lambda x: x * weight)
    x = torch.arange(3.0)
    assert recorded(x).tolist() == [0, 1, 2]
    with torch.no_grad():
        weight.copy_(torch.full((3,), 5.0))
    assert recorded(x).tolist() == [0, 5, 10] and len(recorded.records) == 1
    assert not recorded(x).requires_grad


def test_what_is_written_into_an_argument_is_written_each_time():
    recorded = Recorded(lambda past, index, new: past.index_copy_(0, index, new))
    past = torch.zeros(3, 2)
    for i in range(3):
        past = recorded(past, torch.tensor([i]), torch.full((1, 2), float(i + 1)))
    assert past.tolist() == [[1, 1], [2, 2], [3, 3]] and len(recorded.records) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1 if x.sum() > 0 else x - 1,
        lambda x: x[: int(x.max())],
        lambda x: torch.as_tensor(x.numpy() * 2),
        lambda x: x * x.sum().item(),
        lambda x: x * elsewhere,
    ],
)
def test_a_function_of_values_runs_as_it_is(function):
    calls = [(torch.tensor([1.0, 2.0]),), (torch.tensor([-1.0, 0.5]),), (torch.tensor([1.0, -5.0]),)]
    assert runs_of(function, *calls) == 1 + len(calls)  # the first stops where it cannot be recorded


elsewhere = torch.tensor([3.0, 4.0])


def test_random_numbers_are_drawn_each_time():
    recorded = Recorded(lambda x: x + torch.rand(4))
    torch.manual_seed(0)
    found = [recorded(torch.zeros(4)) for _ in range(3)]
    torch.manual_seed(0)
    assert torch.equal(torch.stack(found), torch.stack([torch.rand(4) for _ in range(3)]))


def test_tensors_are_not_kept_longer_than_they_are_used():
    """A record holds none of what it was made from, and what it made for the next line goes with that line."""
    import weakref

    made = []

    def function(x):
        for _ in range(3):
            x = x * 2
            made.append(weakref.ref(x))
        return x

    recorded = Recorded(function)
    result = recorded(torch.ones(2))
    assert [reference() is None for reference in made] == [True, True, False] and result.tolist() == [8, 8]
    run, _ = next(iter(recorded.records.values()))
    assert not any(isinstance(value, torch.Tensor) for value in run.__globals__.values())


def test_so_many_records_and_no_more():
    calls = [(torch.zeros(n),) for n in range(1, RECORDS + 4)]
    assert runs_of(lambda x: x + 1, *calls, *calls) == RECORDS + 6
