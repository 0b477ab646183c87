"""Latent flow against closed forms: its velocity, solver, density, guidance and latents."""

import math
import signal

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.core.space import Images, Points
from latlas.data.batches import Batches
from latlas.engine.trainer import Trainer
from latlas.models.latent_flow import LatentFlow, LatentFlowConfig, differences
from latlas.networks.spatial import (
    ShuffleUp,
    SpatialDecoder,
    SpatialEncoder,
    WithDetail,
    patch_discriminator,
)
from latlas.networks.velocity import VelocityUNet
from latlas.run import Run
from latlas.verbs import passes
from latlas.verbs.generate import interpolate


def small(shape: tuple[int, ...] = (1, 8, 8), classes: int = 0, **settings) -> LatentFlow:
    torch.default_generator.manual_seed(0)
    names = tuple("abcdef"[:classes])
    settings = {"width": 8, "condition": "label" if classes else "none"} | settings
    return LatentFlow(LatentFlowConfig(**settings), Images(shape, 256, classes=names)).eval()


class Affine(LatentFlow):
    """The exact velocity between N(0, I) and N(m, s² I), m a constant for each class."""

    mean, sd = 0.7, 1.6

    def velocity(self, z, t, label=None):
        m = self.mean if label is None else self.mean * (1.0 + label.float()[:, None])
        t = t[:, None]
        a = (t * self.sd**2 - (1 - t)) / (t**2 * self.sd**2 + (1 - t) ** 2)
        return m + a * (z - t * m)


def affine(**settings) -> Affine:
    space = Images((1, 4, 4), 256, classes=("a", "b"))
    return Affine(LatentFlowConfig(width=8, condition="label", **settings), space).eval()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 64), (4, 33, 17), (3, 128, 96), (2, 5, 40)])
def test_images_of_any_size_and_channels(shape):
    """Latents have sides of at most 8, of images above 32 pixels 16, and what is decoded has the
    shape of the image."""
    model = small(shape, steps=1)
    x = torch.rand(2, *shape) * 2 - 1
    with torch.no_grad():
        z = model.encode(x).mean
        assert model.decode(z).mean.shape == (2, *shape)
        assert model.sample(2, noise=Noise(0)).shape == (2, *shape)
    assert max(model.latent_shape[1:]) <= (8 if max(shape[1:]) <= 32 else 16)
    assert z.shape == (2, math.prod(model.latent_shape)) == (2, model.latent_dim)


def test_latents_are_standardised_whatever_the_image():
    """Of every example the mean is 0 and, with the noise, the mean square 1."""
    model = small((3, 16, 16), latent_noise=0.4)
    x = torch.rand(6, 3, 16, 16) * torch.tensor([0.2, 0.3, 0.4, 0.5, 1, 2])[:, None, None, None]
    with torch.no_grad():
        q = model.encode(x)
    torch.testing.assert_close(q.mean.mean(1), torch.zeros(6), atol=1e-5, rtol=0)
    second = q.mean.square().mean(1) + q.log_var.exp()
    torch.testing.assert_close(second, torch.ones(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(q.log_var.exp(), torch.tensor(0.16))
    drawn = q.draws(2000, Noise(0))
    torch.testing.assert_close(drawn.square().mean((0, 2)), torch.ones(6), atol=0.02, rtol=0)


def test_upsampling_starts_as_a_resize():
    """Without a checkerboard: the four pixels of one are equal."""
    decoder = SpatialDecoder(3, 4, [(12, 20), (6, 10), (3, 5)], 8, 1)
    with torch.no_grad():
        x = decoder(torch.randn(2, 4, 3, 5))
    assert x.shape == (2, 3, 12, 20)
    torch.testing.assert_close(x[..., ::2, ::2], x[..., 1::2, 1::2])
    assert x[..., ::2, ::2].std() > 0.1
    up = ShuffleUp(2, 3, (5, 7))
    assert up(torch.randn(1, 2, 3, 4)).shape == (1, 3, 5, 7)


def test_networks_preserve_the_scale():
    sizes = [(32, 32), (16, 16), (8, 8)]
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        z = SpatialEncoder(3, 8, sizes, 16, 2)(x)
        y = SpatialDecoder(3, 8, sizes, 16, 2)(torch.randn_like(z))
    assert 0.3 < z.square().mean() < 3
    assert 0.1 < y.square().mean() < 3


def test_the_autoencoder_pays_for_pixels_and_edges():
    error = torch.tensor([[[[0.0, 1.0], [3.0, -2.0]]]])
    assert differences(error).item() == pytest.approx((3 + 3) / 2 + (1 + 5) / 2)
    model = small(gradient_weight=0.5)
    x = torch.rand(4, 1, 8, 8)
    (name, loss), = model.losses(Batch(x), Step(0, 0, 0.0, Noise(3)))
    error = model.decode(model.encode(x).sample(Noise(3))).mean - x
    assert name == "autoencoder"
    expected = error.abs().mean() + 0.5 * differences(error)
    torch.testing.assert_close(loss.total, expected)


def test_the_discriminator_comes_in_the_middle_of_the_autoencoders_share():
    """And once enough images were seen. D learns to tell an image from its reconstruction."""
    model, x = small(adversarial_weight=0.3), torch.rand(4, 1, 8, 8)
    assert [phase.name for phase in model.phases] == ["autoencoder", "discriminator", "flow"]
    assert len(list(model.losses(Batch(x), Step(0, 20_000, 0.24, Noise(3))))) == 1
    assert len(list(model.losses(Batch(x), Step(0, 5_000, 0.25, Noise(3))))) == 1
    (_, first), (name, second) = model.losses(Batch(x), Step(5, 10_000, 0.25, Noise(3)))
    y = model.decode(model.encode(x).sample(Noise(3))).mean
    real, fake = model.discriminator(x), model.discriminator(y)
    assert name == "discriminator"
    torch.testing.assert_close(first.terms["adversarial"], -(fake - real).sigmoid().log().mean())
    torch.testing.assert_close(second.total, -(real - fake).sigmoid().log().mean())
    second.total.backward()
    assert model.decoder.layers[0].weight.grad is None
    assert all(p.grad is not None for p in model.discriminator.parameters())


def test_the_discriminator_pulls_at_pixels_as_strongly_as_its_weight_says():
    """Beside the errors, whatever the scale of its logits."""
    model, x = small(adversarial_weight=0.3), torch.rand(4, 1, 8, 8)
    without = small(adversarial_weight=0)
    for scale in (1.0, 100.0):
        with torch.no_grad():
            model.discriminator[-1].weight.mul_(scale)
        pulled, errors = (gradient_at_pixels(each, x) for each in (model, without))
        assert (pulled - errors).norm() / errors.norm() == pytest.approx(0.3, rel=1e-4)


def gradient_at_pixels(model: LatentFlow, x: torch.Tensor) -> torch.Tensor:
    """Of the autoencoder's loss, once the discriminator has come."""
    decoded = []
    hook = model.decoder.register_forward_hook(lambda _, __, y: decoded.append(y))
    _, loss = next(iter(model.losses(Batch(x), Step(5, 10_000, 0.25, Noise(3)))))
    hook.remove()
    return torch.autograd.grad(loss.total, decoded[0])[0]


def test_the_discriminator_sees_detail_beside_the_image():
    """What a blur leaves as it is has none; a single pixel keeps 8/9 of itself, four times."""
    flat, dot = torch.full((1, 1, 5, 5), 0.7), torch.zeros(1, 1, 5, 5)
    dot[..., 2, 2] = 0.9
    image, detail = WithDetail()(flat).unbind(1)
    torch.testing.assert_close(image, flat[:, 0])
    torch.testing.assert_close(detail, torch.zeros(1, 5, 5), atol=1e-6, rtol=0)
    assert WithDetail()(dot)[0, 1, 2, 2].item() == pytest.approx(4 * 0.8)


@pytest.mark.parametrize(("side", "out"), [(64, 8), (9, 1), (5, 1), (2, 1), (1, 1)])
def test_a_discriminator_of_patches_fits_small_images(side, out):
    assert patch_discriminator(3, 8, side)(torch.rand(2, 3, side, side)).shape == (2, 1, out, out)


def test_the_flows_loss_is_of_a_point_on_the_way():
    """An untrained velocity, and the step's draws made here in their order."""
    model, x, noise = small(draws=3), torch.rand(4, 1, 8, 8), Noise(3)
    z = model.encode(x).draws(3, noise).flatten(0, 1)
    epsilon = noise.normal(3, 4, model.latent_dim, batch=1).flatten(0, 1)
    t = noise.normal(3, 4, batch=1).sigmoid().flatten()[:, None]
    z_t = (1 - t) * epsilon + t * z
    velocity = z_t * (2 * t - 1) / ((1 - t) ** 2 + t**2)
    expected = (velocity - (z - epsilon)).square().mean()
    (name, loss), = model.losses(Batch(x), Step(9, 90, 0.5, Noise(3)))
    assert name == "flow"
    torch.testing.assert_close(loss.total, expected)


def test_each_phase_learns_in_its_own_part_of_the_budget():
    """The learning rate of both rises from 0 and falls."""
    data = tiny.images()
    model = tiny.build("latent-flow", data, tiny.small("latent-flow", autoencoder_share=0.25))
    options = tiny.options(warmup=0.1, images=320)
    trainer, rates = Trainer(model, options, budget=320, precision="fp32"), {}
    for name, (_, adam) in trainer.phases.items():
        original = adam.step
        adam.step = lambda rate, n=name, step=original: (
            rates.setdefault(n, []).append((trainer.index, rate)), step(rate))
    batches = Batches(data, 16)
    for k in range(20):
        trainer.step(batches.at(k))
    assert [i for i, _ in rates["autoencoder"]] == list(range(5))
    assert [i for i, _ in rates["flow"]] == list(range(5, 20))
    for steps in rates.values():
        assert steps[0][1] < 1e-6
        assert max(rate for _, rate in steps) > 0.8
        assert steps[-1][1] < 0.2


def test_the_flow_sees_every_latent_of_a_large_image():
    """Latents of more than 8 × 8 are taken in patches; every one moves its own velocity."""
    flow = VelocityUNet(2, (11, 9), 16, 1).double()
    torch.nn.init.normal_(flow.head[-1].weight, std=0.1)
    z = torch.randn(1, 2, 11, 9, dtype=torch.float64, requires_grad=True)
    v = flow(z, torch.full((1,), 0.3, dtype=torch.float64))
    assert v.shape == z.shape
    for place in ((0, 0, 0), (1, 10, 8), (0, 5, 4)):
        slope, = torch.autograd.grad(v[0][place], z, retain_graph=True)
        assert slope[0][place].abs() > 1e-6


def test_an_untrained_flow_leaves_noise_as_it_is():
    """Its samples are standard normal, and so is its density."""
    model = small(steps=12)
    z = model.sample_latents(4, noise=Noise(1))
    torch.testing.assert_close(z, Noise(1).normal(4, model.latent_dim), atol=5e-2, rtol=1e-2)
    expected = stats.norm.logpdf(z.numpy()).sum(1)
    nats = model.prior.log_prob(z)
    torch.testing.assert_close(nats.double(), torch.from_numpy(expected).double(), atol=0.2,
                               rtol=0)


def test_the_solver_is_of_second_order():
    """Against the map z → m + s z of the Gaussian's velocity."""
    z = torch.randn(20, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for steps in (16, 32):
        model = affine(steps=steps)
        end = model.transport(z)
        errors.append((end - (model.mean + model.sd * z)).abs().max().item())
        torch.testing.assert_close(model.transport(end, 1.0, 0.0), z, atol=0.05, rtol=0)
    assert 3 < errors[0] / errors[1] < 5.5


def test_the_density_of_latents_is_that_of_the_gaussian():
    """The trace is exact here, of few dimensions."""
    model = affine(steps=20)
    z = torch.randn(3, 5, model.latent_dim)
    expected = stats.norm(model.mean, model.sd).logpdf(z.numpy()).sum(-1)
    torch.testing.assert_close(model.prior.log_prob(z).double(), torch.from_numpy(expected),
                               atol=1e-3, rtol=0)
    draws = model.prior.sample(20_000, Noise(0))
    assert draws.mean().item() == pytest.approx(model.mean, abs=0.02)
    assert draws.std().item() == pytest.approx(model.sd, abs=0.03)


def test_the_estimated_density_of_many_dimensions():
    """A velocity that scales all dimensions alike has an exact trace with any probe."""
    model = Affine(LatentFlowConfig(width=8), Images((1, 16, 16), 256)).eval()
    z = torch.randn(4, model.latent_dim)
    assert model.latent_dim > 32
    expected = stats.norm(model.mean, model.sd).logpdf(z.numpy()).sum(-1)
    torch.testing.assert_close(model.prior.log_prob(z).double(), torch.from_numpy(expected),
                               atol=1e-2, rtol=0)


def test_a_walk_through_the_noise_has_the_ends_that_are_asked_for():
    """In between a great circle of noise is carried to latents of the flow's own spread."""
    run = Run.of(affine(steps=40))
    first, last = Noise(4).normal(2, run.model.latent_dim).numpy()
    x = interpolate(run, first, last, steps=5, space="noise", method="slerp").values
    ends = run.model.decode(torch.from_numpy(np.stack([first, last]))).mean
    ends = np.clip(np.rint(run.space.to_data(ends).detach().numpy()), 0, 255)
    np.testing.assert_allclose(x[[0, -1]].astype(float), ends, atol=2)
    noise = passes.transported(run.model, first, 1.0, 0.0)
    np.testing.assert_allclose(noise[0], (first - Affine.mean) / Affine.sd, atol=5e-3)
    vae = Run.of(tiny.build("ae", tiny.images(), tiny.small("ae")).eval())
    with pytest.raises(CapabilityError, match="has no flow"):
        interpolate(vae, first[:3], last[:3], space="noise")


def test_a_gradient_of_the_density_is_refused():
    """It would be missing without a word, and annealing needs it."""
    model = small()
    with pytest.raises(CapabilityError, match="no gradient"):
        model.prior.log_prob(torch.randn(2, model.latent_dim, requires_grad=True))


def test_guidance_of_one_is_the_conditional_flow():
    label = torch.tensor([0, 1, 1])
    z = Noise(2).normal(3, affine().latent_dim)
    plain = affine(guidance=1.0).transport(z, condition=label)
    means = Affine.mean * (1.0 + label[:, None])
    torch.testing.assert_close(plain, means + Affine.sd * z, atol=0.02, rtol=0)
    strong = affine(guidance=3.0, guidance_interval=(0.0, 1.0)).transport(z, condition=label)
    # means are extrapolated from that of all classes: m + 3 (m (1 + c) − m)
    means = Affine.mean * (1.0 + 3.0 * label[:, None])
    torch.testing.assert_close(strong, means + Affine.sd * z, atol=0.03, rtol=0)
    never = affine(guidance=3.0, guidance_interval=(0.0, 0.0))
    t = torch.full((3,), 0.5)
    assert torch.equal(never.guided(z, t, label), never.velocity(z, t, label))


def test_a_conditional_flow_learns_classes_and_all_together():
    model = small(classes=3)
    for layer in (model.flow.head[-1], model.flow.after[0].conv2):  # which start at zero
        torch.nn.init.normal_(layer.weight, std=0.1)
    z, t = torch.randn(4, model.latent_dim), torch.full((4,), 0.4)
    with torch.no_grad():
        v = [model.velocity(z, t, torch.full((4,), k)) for k in range(3)]
        together = model.velocity(z, t)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(v, [*v[1:], together], strict=True))
    with pytest.raises(DataError, match="labels of two classes"):
        small(condition="label")


def test_points_are_refused():
    with pytest.raises(ConfigError, match="needs images"):
        LatentFlow(LatentFlowConfig(), Points((2,)))


def test_attention_reaches_every_pixel():
    """A change in one corner moves the opposite one, where convolutions alone would not reach."""
    net = VelocityUNet(1, (64, 64), 16, 1)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    for block in (*net.before, *net.middle, *net.after):  # whose statistics reach everywhere, too
        block.norm1, block.norm2 = torch.nn.Identity(), torch.nn.Identity()
    net.head[0] = net.attention[0].norm = torch.nn.Identity()
    z, t = torch.zeros(1, 1, 64, 64, requires_grad=True), torch.zeros(1)
    net(z, t)[0, 0, -1, -1].backward()
    assert z.grad[0, 0, 0, 0] != 0


def test_a_run_that_is_stopped_in_either_phase_ends_with_the_same_bits(tmp_path):
    config = tiny.small("latent-flow", draws=2, steps=2)
    whole = tiny.weights(tiny.train(tmp_path / "whole", "latent-flow", tiny.images(), config)[0])
    for images in (64, 224):  # of 320, the first half is the autoencoder's
        run = tmp_path / f"run{images}"
        stop = tiny.At(images, lambda: signal.raise_signal(signal.SIGINT))
        tiny.train(run, "latent-flow", tiny.images(), config, progress=stop)
        assert not (run / "model.safetensors").exists()
        again = tiny.train(run, "latent-flow", tiny.images(), config)[0]
        assert torch.equal(whole, tiny.weights(again))


def test_blobs_are_learnt(tmp_path):
    """Samples have the ink of the data, where it is, and the flow's density tells noise apart."""
    data = tiny.images(n=300)
    model, _ = tiny.train(tmp_path / "run", "latent-flow", data,
                          tiny.small("latent-flow", latent_channels=4, flow_width=32),
                          training=tiny.options(images=6400, learning_rate=5e-3))
    x = data.space.to_model(torch.from_numpy(data.x).float())
    with torch.no_grad():
        z = model.encode(x).mean
        error = (model.decode(z).mean - x).square().mean().sqrt()
        drawn = model.sample(300, noise=Noise(0))
    assert error < 0.3 * x.std()
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.25, rtol=0)
    torch.testing.assert_close(drawn.std(0), x.std(0), atol=0.25, rtol=0)
    real, noise = model.prior.log_prob(z[:50]), model.prior.log_prob(torch.randn_like(z[:50]))
    assert real.mean() > noise.mean() + 20
