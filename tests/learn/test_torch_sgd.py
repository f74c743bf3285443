from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rolecall.learn.torch_sgd import SGD  # noqa: E402


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_is_torchs_bit_for_bit(momentum: float, weight_decay: float) -> None:
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay}
    mine, reference = SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
    for step in range(5):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for module, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_leaves_frozen_and_unused_parameters_alone() -> None:
    frozen, unused = torch.nn.Parameter(torch.ones(2), requires_grad=False), torch.nn.Parameter(torch.ones(2))
    optimizer = SGD([frozen, unused], lr=0.1)
    optimizer.zero_grad()
    optimizer.step()
    assert frozen.tolist() == unused.tolist() == [1, 1]
