import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unmask.errors import UserError
from unmask.nn.dropout import Dropout, _by_operations, _masked, dropout, new_key
from unmask.nn.ragged import Layout

KINDS = [torch.float32, torch.bfloat16]
EXACT = [*KINDS, torch.float64]


@pytest.fixture
def thread() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def dropped(x: Tensor, rate: float, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return dropout(x, rate)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_drops_at_its_rate_and_scales_the_rest(kind: torch.dtype, rate: float) -> None:
    x = torch.rand(300_001).to(kind) + 1
    out = dropped(x, rate, 0)
    kept = out != 0
    spread = (rate * (1 - rate) / x.numel()) ** 0.5
    assert abs(1 - kept.double().mean().item() - rate) < 5 * spread
    scaled = (x.float() * torch.tensor(1 / (1 - rate))).to(kind)  # rounded once, to even, as torch does
    assert torch.equal(out[kept], scaled[kept])


def test_places_and_seeds_are_independent() -> None:
    ones = torch.ones(1 << 20)
    mask = (dropped(ones, 0.3, 0) != 0).double() - 0.7
    limit = 5 * 0.21 / mask.numel() ** 0.5
    for lag in (1, 2, 7, 16, 64, 1024, 4096, 8192, 65_536):
        assert abs((mask[lag:] * mask[:-lag]).mean().item()) < limit, lag
    for seed in range(1, 9):
        assert abs((mask * ((dropped(ones, 0.3, seed) != 0).double() - 0.7)).mean().item()) < limit, seed
    columns = mask.view(1024, 1024).mean(0)
    assert columns.std().item() == pytest.approx((0.21 / 1024) ** 0.5, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_passes_where_values_did(kind: torch.dtype) -> None:
    x = torch.rand(37, 113).to(kind).requires_grad_()
    out = dropped(x, 0.4, 3)
    upstream = torch.rand(37, 113).to(kind)
    (gradient,) = torch.autograd.grad(out, x, upstream)
    scaled = (upstream.float() * torch.tensor(1 / 0.6)).to(kind)
    assert torch.equal(gradient, torch.where(out != 0, scaled, 0))


@pytest.mark.usefixtures("thread")
def test_the_seed_decides_the_mask_not_the_threads() -> None:
    x = torch.rand(5, 10_001)
    torch.set_num_threads(1)
    alone = dropped(x, 0.2, 1)
    torch.set_num_threads(3)
    assert torch.equal(dropped(x, 0.2, 1), alone)
    assert not torch.equal(dropped(x, 0.2, 2), alone)
    assert torch.equal(dropped(x.t().contiguous().t(), 0.2, 1), alone)


def test_two_calls_in_a_row_draw_two_masks() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000)
    assert not torch.equal(dropout(x, 0.5), dropout(x, 0.5))


def test_a_checkpoint_makes_the_same_mask_again() -> None:
    x = torch.rand(64, 64, requires_grad=True)

    def gradient(*, kept: bool) -> Tensor:
        def layer(y: Tensor) -> Tensor:
            return dropout(y, 0.5) ** 2

        torch.manual_seed(0)
        out = layer(x) if kept else checkpoint(layer, x, use_reentrant=False)
        torch.manual_seed(1)
        return torch.autograd.grad(out.sum(), x)[0]

    assert torch.equal(gradient(kept=False), gradient(kept=True))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_other_types_are_dropped_too(kind: torch.dtype) -> None:
    out = dropped(torch.ones(10_000, dtype=kind), 0.5, 0)
    assert 4_500 < int((out == 0).sum()) < 5_500


def test_nothing_is_done_where_nothing_is_dropped() -> None:
    x = torch.rand(3)
    assert dropout(x, 0.0) is x
    assert dropout(x, 0.5, training=False) is x
    assert Dropout(0.5).eval()(x) is x
    assert dropout(torch.ones(0, 4), 0.5).shape == (0, 4)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_rate_that_means_nothing_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="dropout is"):
        Dropout(rate)


@pytest.mark.parametrize("kind", EXACT)
def test_a_line_has_its_mask_wherever_it_stands(kind: torch.dtype) -> None:
    """A text's tokens are masked alike in the whole batch and in a part of it, for the same key."""
    whole, part = Layout.of([3, 5, 2, 4]), Layout.of([5, 4], rows=[1, 3])
    x, key = torch.ones(whole.total, 70).to(kind), new_key(torch.device("cpu"))
    of_whole = dropout(x, 0.3, whole.places, key=key)
    of_part = dropout(torch.ones(part.total, 70).to(kind), 0.3, part.places, key=key)
    assert torch.equal(of_part, torch.cat([of_whole[3:8], of_whole[10:]]))
    assert len({tuple(line.tolist()) for line in of_whole}) == whole.total, "no two lines are alike"
    heads = dropout(torch.ones(2, 2, 5, 70), 0.3, part.query_places(2), key=key)
    assert len({tuple(line.tolist()) for line in heads.flatten(0, 2)}) == 20


@pytest.mark.parametrize("kind", EXACT)
def test_other_devices_make_the_same_mask(kind: torch.dtype) -> None:
    x, places = torch.rand(6, 9).to(kind) + 1, torch.tensor([0, 1, 1 << 32, (7 << 32) + 3, -1, 1 << 62])
    key = new_key(x.device)
    found = _by_operations(x, 0.4, key, places)
    torch.testing.assert_close(found.to(kind), _masked(x, 0.4, key, places))
    assert 0 < int((found == 0).sum()) < x.numel()
