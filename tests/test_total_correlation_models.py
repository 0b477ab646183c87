"""β-TC-VAE and FactorVAE: what they add to the bound, and whether the discriminator is right."""

from __future__ import annotations

import json
import math

import pytest
import tiny
import torch

from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.data.batches import Sweep
from latlas.engine.trainer import Trainer
from latlas.objectives.elbo import total_correlation


def step():
    return Step(0, 0, 1.0, Noise(3))


def model_and_batch(name, **settings):
    data = tiny.images()
    model = tiny.build(name, data, tiny.small(name, dropout=0.0, **settings))
    return model, next(iter(Sweep(data, 30)))


def test_beta_of_one_is_a_vae_and_more_adds_the_total_correlation():
    plain, batch = model_and_batch("vae")
    bound = plain.loss(batch, step()).total
    q = plain.encode(batch.x)
    z = q.sample(Noise(3))
    tc = total_correlation(z, q).mean()
    for beta in (1.0, 3.0):
        model, _ = model_and_batch("beta-tc-vae", beta=beta)
        result = model.loss(batch, step()).total
        torch.testing.assert_close(result, bound + (beta - 1) * tc)


@pytest.mark.parametrize(("start", "result"), [(0.0, [0.0, 0.5, 1.0, 1.0]),
                                              (0.5, [0.5, 0.75, 1.0, 1.0]),
                                              (16.0, [16.0, 4.0, 1.0, 1.0])])
def test_the_weight_of_the_kl_rises_linearly_and_cools_geometrically(start, result):
    model, batch = model_and_batch("vae", kl_warmup=0.5, kl_weight_start=start)
    steps = [Step(0, 0, share, Noise(3)) for share in (0.0, 0.25, 0.5, 1.0)]
    assert [model.kl_weight(s) for s in steps] == pytest.approx(result)
    losses = [model.loss(batch, Step(0, 0, share, Noise(3))) for share in (0.0, 1.0)]
    apart = losses[0].total - losses[1].total
    torch.testing.assert_close(apart, (start - 1) * losses[1].terms["kl"])


def test_the_models_of_factors_cool_and_a_vae_does_not():
    weights = [model_and_batch(name)[0].kl_weight(Step(0, 0, 0.0, Noise(3)))
               for name in ("vae", "beta-vae", "beta-tc-vae", "factor-vae")]
    assert weights == [1.0, 4.0, 20.0, 20.0]  # of beta-vae it is β all along


def test_gamma_weighs_what_the_discriminator_says():
    plain, batch = model_and_batch("factor-vae", gamma=0.0)
    weighed, _ = model_and_batch("factor-vae", gamma=5.0)
    without, result = plain.loss(batch, step()), weighed.loss(batch, step())
    tc = result.terms["total correlation"]
    assert tc != 0
    torch.testing.assert_close(result.total, without.total + 5 * tc)


def test_the_discriminator_learns_the_total_correlation_of_a_gaussian():
    """Codes N(0, [[1, ρ], [ρ, 1]]): −½ log(1 − ρ²) nats."""
    data, rho = tiny.points(), 0.8
    torch.manual_seed(0)
    model = tiny.build("factor-vae", data, tiny.small(
        "factor-vae", latent_dim=2, discriminator_width=64, discriminator_depth=2))
    adam = torch.optim.Adam(model.discriminator.parameters(), 2e-3)
    factor = torch.tensor([[1.0, 0.0], [rho, math.sqrt(1 - rho**2)]])
    for k in range(300):
        latents = Noise(k + 1000).normal(2048, 2) @ factor.T
        loss = model.discriminator_loss(latents, Step(k, 0, 1.0, Noise(k))).total
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        result = model.log_density_ratio(Noise(7).normal(20_000, 2) @ factor.T).mean().item()
    assert result == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.08)
    assert loss.item() < math.log(2)


def test_a_model_of_two_players_is_checked_by_the_phase_it_names(tmp_path):
    data = tiny.images()
    outcome = tiny.train(tmp_path / "run", "factor-vae", data, tiny.small("factor-vae"),
                         validation=data)[1]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    checked = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert outcome.best == min(checked)
    assert tiny.train(tmp_path / "gan", "toy_gan:ToyGAN", tiny.points(), tiny.small(
        "toy_gan:ToyGAN"), validation=tiny.points())[1].best is None


def test_codes_are_scored_with_gradients_to_the_encoder_alone():
    model, batch = model_and_batch("factor-vae")
    losses = model.losses(Batch(batch.x), step())
    next(losses)
    next(losses)[1].total.backward()
    assert all(p.grad is None for n, p in model.named_parameters()
               if not n.startswith("discriminator"))


def test_each_player_has_its_own_decay_rates():
    model, _ = model_and_batch("factor-vae")
    trainer = Trainer(model, tiny.options(betas=(0.8, 0.95)), budget=320, precision="fp32")
    assert [adam.betas for adam in trainer.optimisers] == [(0.8, 0.95), (0.5, 0.9)]
