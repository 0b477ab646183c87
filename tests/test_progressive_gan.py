"""``progressive-gan``: how it grows, that a fade is continuous, and that it resumes within one."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import pairwise

import pytest
import tiny
import torch

from latlas.core.devices import DistributedContext
from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.data.batches import Batches
from latlas.engine import resolve as resolving
from latlas.engine.resolve import resolve
from latlas.engine.trainer import Trainer
from latlas.models.progressive_gan import stage_at
from latlas.networks.equalised import at_stage, enlarged, shrunk
from latlas.run import Run

SIZES = [(4, 4), (8, 8), (16, 16)]
#: from size 0 to 2 over the first 80% of 20 steps
GROWING = {"depth": 2, "grow_share": 0.8}


def model_of(shape=(3, 16, 16), **settings):
    config = tiny.small("progressive-gan", **({"depth": 2} | settings))
    return tiny.build("progressive-gan", tiny.images(shape), config).eval()


def test_the_stage_follows_the_share_of_the_budget():
    result = [stage_at(k / 16, 4, 0.5) for k in range(17)]
    expected = [j + s for j in range(4) for s in (0, 0, 0, 0.5)] + [4]
    assert result == expected
    every = [stage_at(k / 5000, 4, 0.5) for k in range(5001)]
    assert every == sorted(every) and max(b - a for a, b in pairwise(every)) < 0.01
    assert [stage_at(k / 8, 2, 0.0) for k in range(9)] == [0] * 4 + [1] * 4 + [2]
    assert stage_at(0.25, 2, 1.0) == 0.5
    assert all(torch.tensor(stage).item() == stage for stage in every)


def test_most_of_the_budget_is_at_full_size():
    model = model_of()
    assert model.stage_at(0.5) == model.stage_at(1.0) == 2 and model.stage_at(0.499) < 2
    assert model_of(grow=False).stage_at(0.0) == 2


@pytest.mark.parametrize("level", [1, 2])
def test_the_generators_fade_is_continuous(level):
    model, z = model_of(), torch.randn(3, 3)
    g = model.generator
    with torch.no_grad():
        coarse, fine = g(z, level - 1.0), g(z, float(level))
        assert coarse.shape[2:] == SIZES[level - 1] and fine.shape[2:] == SIZES[level]
        begun = enlarged(coarse, SIZES[level])
        torch.testing.assert_close(g(z, level - 1 + 1e-9), begun, atol=1e-5, rtol=0)
        torch.testing.assert_close(g(z, level - 1e-9), fine, atol=1e-5, rtol=0)
        torch.testing.assert_close(g(z, level - 0.75), begun + 0.25 * (fine - begun), atol=1e-5,
                                   rtol=0)


@pytest.mark.parametrize("level", [1, 2])
def test_the_discriminators_fade_is_continuous(level):
    d = model_of().discriminator
    x = torch.randn(4, 3, *SIZES[level])
    with torch.no_grad():
        before, after = d(shrunk(x, SIZES[level - 1]), level - 1.0), d(x, float(level))
        torch.testing.assert_close(d(x, level - 1 + 1e-9), before, atol=1e-5, rtol=0)
        torch.testing.assert_close(d(x, level - 1e-9), after, atol=1e-5, rtol=0)
        assert not torch.allclose(before, after)


def test_the_generator_sees_the_direction_of_a_latent_vector_and_not_its_length():
    g, z = model_of().generator, torch.randn(3, 3)
    for p in g.parameters():  # a layer without biases has that property by itself
        torch.nn.init.normal_(p)
    longer = z * torch.tensor([[0.1], [2.0], [50.0]])
    with torch.no_grad():
        torch.testing.assert_close(g(longer, 2.0), g(z, 2.0), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(g(-z, 2.0), g(z, 2.0), atol=0.1)


def test_real_pictures_fade_alike():
    x = torch.randn(2, 1, 16, 16)
    half = x.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    assert torch.equal(at_stage(x, SIZES, 2.0), x)
    torch.testing.assert_close(at_stage(x, SIZES, 1.0), half)
    blurred = enlarged(half, (16, 16))
    torch.testing.assert_close(at_stage(x, SIZES, 1.25), blurred + 0.25 * (x - blurred))
    assert at_stage(x, SIZES, 0.0).shape == (2, 1, 4, 4)


def test_decoding_is_continuous_in_the_stage_and_of_full_size():
    model, z = model_of(), torch.randn(2, 3)
    outputs = []
    for stage in (1.0, 1 + 1e-6, 2.0):
        model.stage.fill_(stage)
        outputs.append(model.decode(z).mean)
    assert all(m.shape == (2, 3, 16, 16) for m in outputs)
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=0)
    assert not torch.allclose(outputs[1], outputs[2])


def trainer_of(settings, **more):
    data = tiny.images((1, 16, 16))
    model = tiny.build("progressive-gan", data, tiny.small("progressive-gan", **settings))
    options = tiny.options(warmup=0.0, ema=0.0, **more)
    return model, Trainer(model, options, budget=320, precision="fp32"), Batches(data, 16)


def test_layers_that_wait_do_not_move_and_then_do():
    model, trainer, batches = trainer_of(GROWING)
    waiting = [model.generator.blocks[1], model.generator.colours[2],
               model.discriminator.colours[2], model.discriminator.descent.blocks[1]]
    start = [tiny.weights(m) for m in waiting]
    while model.stage_at(trainer.index / 20) <= 1:
        assert all(torch.equal(tiny.weights(m), s) for m, s in zip(waiting, start, strict=True))
        trainer.step(batches.at(trainer.index))
    for _ in range(2):
        trainer.step(batches.at(trainer.index))
    moved = [(tiny.weights(m) - s).abs().max() for m, s in zip(waiting, start, strict=True)]
    assert all(0 < m < 0.1 for m in moved)  # a moment that begins late makes steps of 10 rates


def test_a_checkpoint_in_a_fade_samples_as_it_was_trained(tmp_path):
    def train(path, progress=None, precision="fp32"):
        training = tiny.options(images=640, precision=precision, ema=0.5)
        return tiny.train(path, "progressive-gan", tiny.images((1, 16, 16)),
                          tiny.small("progressive-gan", augment="ada", width=8, **GROWING),
                          training=training, progress=progress)[0]
    for precision in ("fp32", "bf16"):
        whole = train(tmp_path / f"whole-{precision}", precision=precision)
        run = tmp_path / f"run-{precision}"
        stop = tiny.At(448, lambda: signal.raise_signal(signal.SIGINT))
        stopped = train(run, stop, precision)
        assert stopped.stage == stopped.stage_at(432 / 640) and 1 < stopped.stage < 2
        assert Run(run).model.stage == stopped.stage
        assert torch.equal(tiny.weights(train(run, precision=precision)), tiny.weights(whole))
        assert whole.stage == 2


def test_without_growth_it_is_the_same_network():
    grown, flat = model_of(), model_of(grow=False)
    pairs = zip(grown.named_parameters(), flat.named_parameters(), strict=True)
    assert all(n == m and torch.equal(p, q) for (n, p), (m, q) in pairs)
    assert flat.stage == 2 and not flat.defaults.progressive
    sizes = shown_sizes(flat)
    losses = dict(flat.losses(Batch(torch.zeros(4, 3, 16, 16)), Step(0, 0, 0.0, Noise(0))))
    assert losses["discriminator"].total.isfinite() and set(sizes) == {(16, 16)}


def shown_sizes(model):
    """Sizes of the images that the discriminator sees from here on."""
    sizes = []
    model.discriminator.register_forward_hook(
        lambda _, inputs, out: sizes.append(tuple(inputs[0].shape[2:])))
    return sizes


def test_a_step_shows_pictures_of_the_stage():
    model, batch = model_of(grow_share=0.8), Batch(torch.randn(4, 3, 16, 16))
    sizes = shown_sizes(model)
    for progress, size in ((0.0, 4), (0.3, 8), (0.7, 16), (0.9, 16)):
        sizes.clear()
        outputs = []
        hook = model.generator.register_forward_hook(
            lambda _, inputs, out, m=outputs: m.append(out))
        assert {"discriminator", "generator"} <= dict(
            model.losses(batch, Step(0, 0, progress, Noise(0)))).keys()
        hook.remove()
        assert set(sizes) == {(size, size)} and [m.shape for m in outputs] == [(4, 3, size, size)]
        assert model.stage == model.stage_at(progress)


def test_minutes_are_counted_over_the_whole_of_growth():
    """What is timed is every moment of the run, not its first and quickest steps."""
    model, _, batches = trainer_of(GROWING)
    images_seen = []
    real = Trainer.step

    def look(self, batch):
        real(self, batch)
        images_seen.append(self.model.stage.item())

    options = replace(tiny.options(), images=None, minutes=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", look)
        patch.setattr(resolving, "TRIAL_SHARE", 100.0)  # however slow this machine is
        resolve(model, batches, options, DistributedContext(), 0.0)
    assert set(images_seen) >= {0.0, 2.0} and len(set(images_seen)) > 3
