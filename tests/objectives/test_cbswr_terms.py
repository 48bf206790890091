"""The terms of CBSwR by hand, where they are undefined, and where their gradients may and may not go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.contracts import Batch
from semblance.errors import CollectionError, ConfigError
from semblance.objectives import cbswr
from semblance.objectives._decoder import Decoder, segment_means
from semblance.objectives.cbswr import Config, metric_loss, reconstruction_loss, rim_loss
from semblance.training import checkpoint

AXES = torch.eye(2, dtype=torch.float64)
FOUR = AXES.repeat(2, 1)  # two images, two views each, every view exactly on its cluster's axis
OWN = torch.tensor([0, 1, 0, 1])
BOTH = torch.tensor([True, True])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # s = 1 for the own and 0 for the foreign centroid: -log(e / 1) - log(1 - 1 / (1 + e))
        ({"positive": "ratio", "tau": 1.0}, -1 + math.log((1 + math.e) / math.e)),
        # -log(e / (e + 1)) twice
        ({"positive": "softmax", "tau": 1.0}, 2 * math.log((1 + math.e) / math.e)),
        ({"positive": "softmax", "tau": 1.0, "foreign": 0.0}, math.log((1 + math.e) / math.e)),
        ({"positive": "ratio", "tau": 0.5}, -2 + math.log(1 + math.exp(-2))),
    ],
)
def test_metric_of_four_samples_in_two_clusters(options: dict[str, Any], expected: float) -> None:
    loss = metric_loss(FOUR, FOUR, AXES, OWN, BOTH, Config(**options).resolved())
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("form", "mu", "expected"),
    [
        # H(0.9, 0.1) = 0.325083, H(Y) = ln 2, n = 4, K = 2
        ("plain", 1.0, 0.3250829733914482 - math.log(2)),
        ("mixed", 1.0, 0.3250829733914482 / math.log(4)),
        ("clusters", 1.0, 0.3250829733914482 / math.log(2)),
        ("clusters", 2.0, 0.3250829733914482 / math.log(2) - 1),
    ],
)
def test_rim_of_four_samples_in_two_clusters(form: str, mu: float, expected: float) -> None:
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).repeat(2, 1)
    assert float(rim_loss(p, form, mu)) == pytest.approx(expected, rel=1e-12)


def test_reconstruction_of_four_samples_in_two_clusters() -> None:
    images = torch.tensor([0.0, 1.0, 0.5, 0.6]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    drawn = torch.tensor([0.5, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    means = torch.tensor([0.25, 0.8]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    loss = reconstruction_loss(images, drawn, means, torch.tensor([2, 2]), "mean")
    assert float(loss) == pytest.approx((0.25 + 0.01 + 0.0 + 0.09) / 4)
    summed = reconstruction_loss(images, drawn, means, torch.tensor([2, 2]), "sum")
    assert float(summed) == pytest.approx(4 * float(loss))


@pytest.mark.parametrize("positive", ["ratio", "softmax"])
@pytest.mark.parametrize("tau", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("kind", ["antipodal", "identical", "random"])
@pytest.mark.parametrize("used", [0, 1, 2, 5])
def test_metric_and_its_gradient_are_finite(positive: str, tau: float, kind: str, used: int) -> None:
    rows = F.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(used)), dim=1)
    if kind != "random":
        rows = rows[:1].repeat(12, 1)
        rows[::2] *= -1 if kind == "antipodal" else 1
    f = rows.clone().requires_grad_()
    q = torch.arange(12) % max(used, 1)
    present = torch.arange(5) < used
    c = torch.stack([rows[j] for j in range(5)])
    loss = metric_loss(f, rows.roll(6, 0), c, q, present, Config(positive=positive, tau=tau).resolved())
    (slope,) = torch.autograd.grad(loss, f)
    assert torch.isfinite(loss)
    assert torch.isfinite(slope).all()
    if used < 2:  # nothing is foreign: B7
        assert float(loss.detach()) == 0
        assert not slope.any()


@pytest.mark.parametrize("form", ["mixed", "plain", "clusters"])
def test_rim_is_finite_where_probabilities_are_zero_and_one(form: str) -> None:
    logits = (torch.eye(4) * 300).requires_grad_()
    loss = rim_loss(torch.softmax(logits, 1), form, 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def assigned(objective: Any, labels: list[int]) -> Any:
    objective._assign = lambda noisy, clean: torch.tensor(labels)
    return objective


@pytest.mark.parametrize("variant", ["released", "paper", "fixed"])
@pytest.mark.parametrize("labels", [[2] * 8, [0, 3] * 4, list(range(8))])
@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("same", [False, True])
def test_step_and_its_gradients_are_finite(
    variant: str, labels: list[int], precision: str, same: bool, make: Any, batch: Any
) -> None:
    """|A| of 1, 2 and K; different and identical images; also under bf16 autocast."""
    objective = assigned(make("cbswr", variant=variant, clusters=8).train(), labels)
    given = batch(8)
    if same:
        given = Batch((given.views[0][:1].repeat(8, 1, 1, 1),) * 2, given.ids)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = objective(given)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert loss.total.dtype is torch.float32
    assert all(torch.isfinite(value).all() for value in {**loss.terms, **loss.stats}.values())
    largest = max(float(p.grad.abs().max()) for p in objective.parameters() if p.grad is not None)
    assert math.isfinite(largest)
    assert largest < 1e5
    assert float(loss.stats["degenerate"]) == (len(set(labels)) < 2)
    assert float(loss.stats["used_clusters"]) == len(set(labels)) / 8


def test_bf16_stays_near_float32(make: Any, batch: Any) -> None:
    losses = []
    for enabled in (False, True):
        objective = assigned(make("cbswr", clusters=8, dropout=0.0).train(), list(range(8)))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(objective(batch(8)))
    plain, narrow = losses
    assert float(narrow.total.detach()) == pytest.approx(float(plain.total.detach()), rel=0.02)
    for name in ("share.metric", "share.rim", "share.reconstruction"):
        assert float(narrow.stats[name]) == pytest.approx(float(plain.stats[name]), abs=0.05)


@pytest.mark.parametrize("variant", ["released", "paper", "fixed"])
def test_names_of_clusters_do_not_matter(variant: str, make: Any, batch: Any) -> None:
    objective = make("cbswr", variant=variant, clusters=6, dropout=0.0, share=0.0).double().train()
    given = batch(10, 3, torch.float64)
    before = objective(given)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        linear = objective.cluster.linear
        linear.weight.copy_(linear.weight[order].clone())
        if linear.bias is not None:
            linear.bias.copy_(linear.bias[order].clone())
    after = objective(given)
    for name, value in before.terms.items():
        assert float(after.terms[name].detach()) == pytest.approx(float(value.detach()), rel=1e-10)


@pytest.mark.parametrize("through", [False, True])
def test_gradient_reaches_centroids_only_where_asked(
    through: bool, make: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def watch(f: Tensor, pair: Tensor, c: Tensor, *rest: Any) -> Tensor:
        assert not pair.requires_grad
        seen.append(c)
        return metric_loss(f, pair, c, *rest)

    monkeypatch.setattr(cbswr, "metric_loss", watch)
    objective = make("cbswr", clusters=4, through=through).train()
    objective(batch(8))
    assert seen[0].requires_grad is through


def test_assignment_has_no_gradient_and_comes_from_the_first_view(make: Any, batch: Any) -> None:
    """Another second view leaves every assignment as it was."""
    objective = make("cbswr", clusters=5, assign="clean").eval()
    seen = []
    objective._assign = lambda noisy, clean: seen.append(clean) or clean.argmax(1)
    first, other = batch(6, 1), batch(6, 2)
    objective(first)
    objective(Batch((first.views[0], other.views[1]), first.ids))
    assert torch.equal(seen[0], seen[1])
    assert not seen[0].requires_grad


def test_rows_of_the_decoder_are_the_clusters_present(make: Any, batch: Any) -> None:
    objective = assigned(make("cbswr", variant="fixed", clusters=9).train(), [0, 4, 4, 7, 0, 4, 4, 7])
    rows = []
    objective.decoder.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    objective(batch(8))
    assert rows == [3]


def test_one_decode_per_cluster_equals_decoding_every_member() -> None:
    """F.3: the loss and its gradients, in float32, with the normalisation over all members."""
    torch.manual_seed(0)
    decoder = Decoder(16, 3, 2)
    maps, images = torch.randn(24, 16, 2, 2, requires_grad=True), torch.rand(24, 3, 8, 8)
    q = torch.randint(0, 5, (24,))
    one_hot = F.one_hot(q, 5)
    counts = one_hot.sum(0)
    means = segment_means(maps, one_hot, counts)
    few = reconstruction_loss(
        images, decoder(means, counts, 8), segment_means(images, one_hot, counts), counts, "mean"
    )
    every = (decoder(means[q], torch.ones(24), 8) - images).square().mean()
    assert float(few.detach()) == pytest.approx(float(every.detach()), rel=4e-6)
    wanted = [maps, *decoder.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(few, wanted, retain_graph=True), torch.autograd.grad(every, wanted), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=4e-6 * float(theirs.abs().max()), rtol=0)


def test_segment_means_against_a_loop() -> None:
    rows = torch.randn(9, 2, 3, dtype=torch.float64)
    q = torch.tensor([0, 3, 3, 0, 1, 3, 1, 0, 0])
    means = segment_means(rows, F.one_hot(q, 5), F.one_hot(q, 5).sum(0))
    for j in range(5):
        members = [rows[i] for i in range(9) if q[i] == j]
        expected = sum(members) / len(members) if members else torch.zeros(2, 3)
        assert torch.allclose(means[j], expected.double(), rtol=1e-12)


def test_the_decoder_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A.2: 1.280 M parameters and 151.7 million multiply-adds from 1024 x 7 x 7 to 224 x 224 in (0, 1)."""
    decoder = Decoder(1024, 3, 5)
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(1.280e6, rel=1e-3)
    adds = []
    convolve = F.conv2d

    def counted(x: torch.Tensor, weight: torch.Tensor, **rest: Any) -> torch.Tensor:
        out = convolve(x, weight, **rest)
        adds.append(weight.numel() * out.shape[-2] * out.shape[-1])
        return out

    monkeypatch.setattr(F, "conv2d", counted)
    with torch.no_grad():
        drawn = decoder(torch.randn(2, 1024, 7, 7), torch.tensor([3, 5]), 224)
    assert drawn.shape == (2, 3, 224, 224)
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1
    assert sum(adds) == pytest.approx(151.7e6, rel=1e-3)


def test_gamma_follows_the_gradients(make: Any, batch: Any) -> None:
    """F.4.1: on the first step the drawing's gradient at E is set to `share` of the metric term's."""
    objective = make("cbswr", variant="fixed", clusters=4, share=0.1).train()
    loss = objective(batch(16))
    stats = {name: float(value) for name, value in loss.stats.items()}
    assert stats["share.reconstruction"] == pytest.approx(0.1 * stats["share.metric"], rel=1e-4)
    assert sum(stats[f"share.{name}"] for name in ("metric", "rim", "reconstruction")) == pytest.approx(1)
    (metric,) = torch.autograd.grad(objective(batch(16)).terms["metric"], objective.encoder.second.weight)
    assert metric.any()


def test_weights_of_another_number_of_clusters_are_refused(make: Any, tmp_path: Any) -> None:
    """D1: K is part of what was learned."""
    first, second = make("cbswr", clusters=8), make("cbswr", clusters=6)
    checkpoint.save(tmp_path / "last", first, torch.optim.SGD(first.parameters(), lr=0.1), {})
    with pytest.raises(CollectionError, match="another network"):
        checkpoint.load(tmp_path / "last", second, torch.optim.SGD(second.parameters(), lr=0.1))


def test_more_clusters_than_images(make: Any) -> None:
    """`fixed` asserts K <= m; the released code allows more."""
    with pytest.raises(ConfigError, match="at most 16 clusters"):
        make("cbswr", variant="fixed", clusters=32).check_batch(16)
    make("cbswr", variant="fixed", clusters=16).check_batch(16)
    make("cbswr", variant="fixed").check_batch(16)  # not asked for: clusters without images stay empty
    make("cbswr", variant="released", clusters=100).check_batch(64)


def test_head_decay_is_the_cluster_heads_own(make: Any) -> None:
    objective = make("cbswr", clusters=4, head_decay=0.25)
    rest, head = objective.parameter_groups()
    assert head["weight_decay"] == 0.25
    assert "weight_decay" not in rest
    assert len(rest["params"]) + len(head["params"]) == len(list(objective.parameters()))
    assert {id(p) for p in head["params"]} == {id(p) for p in objective.cluster.parameters()}


def test_instances_of_other_clusters_against_a_loop() -> None:
    f = F.normalize(torch.randn(8, 3, dtype=torch.float64), dim=1)
    q, tau = torch.tensor([0, 1, 0, 2] * 2), 0.2
    expected = 0.0
    for i in range(8):
        others = [j for j in range(8) if q[j] != q[i]]
        whole = sum(math.exp(f[i] @ f[j] / tau) for j in [*others, (i + 4) % 8])
        expected -= sum(math.log(1 - math.exp(f[i] @ f[j] / tau) / whole) for j in others) / 8
        expected -= math.log(math.exp(f[i] @ f[(i + 4) % 8] / tau) / whole) / 8
    assert float(cbswr.instance_loss(f, q, tau)) == pytest.approx(expected, rel=1e-10)


def test_sinkhorn_fills_clusters_evenly() -> None:
    cosines = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)) * 0.2
    cosines[:, 0] += 0.3  # everyone's favourite
    assert (cosines.argmax(1) == 0).all()
    sizes = torch.bincount(cbswr.balance(cosines), minlength=6)
    assert int(sizes.min()) >= 5
    assert int(sizes.max()) <= 16


@pytest.mark.parametrize(
    "options",
    [{"variant": "new"}, {"clusters": 1}, {"tau": 0.0}, {"dim": 1}, {"dropout": 1.0}],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)


def test_variants_fill_only_what_was_not_set() -> None:
    config = Config(variant="released", clusters=7).resolved()
    assert config.clusters == 7
    assert (config.logits, config.positive, config.target) == ("unit", "ratio", "centred")
    assert all(value is not None for value in vars(config).values())
