"""From one domain to another: losses by hand, the buffer of earlier fakes, files that go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

import latlas
import latlas.data
from latlas.cli import __main__ as cli
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Batch, PairBatch, Step
from latlas.core.noise import Noise, dropout_rng
from latlas.core.space import Images, Recordings, Sound
from latlas.data import open_source
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.engine.callbacks import ALARMS
from latlas.metrics import paired
from latlas.models.cycle_gan import replayed
from latlas.models.translation import Pix2Pix, flipped
from latlas.networks.translators import (
    Block,
    ColumnTranslator,
    Mirrored,
    PatchDiscriminator,
    ResidualTranslator,
    UNet,
)
from latlas.verbs.evaluate import evaluated
from latlas.verbs.sections import Subject, build_page


def step(index=0):
    return Step(index, 0, 0.0, Noise(index))


def losses(model, batch, index=0):
    """Every phase's loss of a step in which nothing moves."""
    return dict(model.losses(batch, step(index)))


def model_and_batch(name, data, **settings):
    return (tiny.build(name, data, tiny.small(name, **settings)).eval(),
            Batches(data, 6).at(0))


@pytest.mark.parametrize("size", [(8, 8), (13, 22), (64, 48)])
def test_translators_keep_any_size(size):
    x = torch.randn(2, 3, *size)
    for network in (UNet(3, 2, size, 4), UNet(3, 2, size, 4, depth=2, noise=0.5),
                    UNet(3, 2, size, 4, depth=1, blocks=1), UNet(3, 2, size, 4, blocks=2),
                    ResidualTranslator(3, 2, size, 4, 1), ColumnTranslator(3, 2, size, 1, 1)):
        output = network(x)
        assert output.shape == (2, 2, *size) and output.dtype == torch.float32
        assert output.abs().max() <= 1


@pytest.mark.parametrize("outputs", [1, 3, 20])
@pytest.mark.parametrize("bias", [True, False])
def test_edges_are_mirrored_also_row_by_row(outputs, bias):
    layer, x = Mirrored(4, outputs, 7).double(), torch.randn(2, 4, 11, 12, dtype=torch.float64)
    if not bias:
        layer.conv.register_parameter("bias", None)
    x.requires_grad_()
    known = layer.conv(F.pad(x, [3] * 4, mode="reflect"))
    torch.testing.assert_close(layer(x).double(), known, rtol=1e-5, atol=1e-5)
    mine, theirs = (torch.autograd.grad(y.double().square().sum(), [x, *layer.parameters()])
                    for y in (layer(x), known))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("blocks", [0, 3])
def test_blocks_of_a_unet_are_at_its_innermost_level(blocks):
    model, batch = model_and_batch("pix2pix", tiny.pairs((1, 16, 16)), depth=2, blocks=blocks)
    shapes = []
    for block in model.generator.modules():
        if isinstance(block, Block):
            block.register_forward_hook(lambda _, x, y: shapes.append((x[0].shape, y.shape)))
    model.generator(batch.a.x)
    assert shapes == [((6, 2 * model.config.width, 4, 4),) * 2] * blocks


def test_blocks_of_a_unet_need_a_picture():
    with pytest.raises(ConfigError, match=r"blocks=1: after 4 halvings .* lower depth"):
        UNet(1, 1, (16, 16), 4, depth=4, blocks=1)


@pytest.mark.parametrize(("depth", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_discriminator_sees_patches_of_the_published_size(depth, patch):
    discriminator = PatchDiscriminator(1, 2, depth)
    for layer in discriminator.modules():  # positive everywhere, so that nothing cancels
        if isinstance(layer, torch.nn.InstanceNorm2d):
            layer.forward = lambda h: h
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.ones_(layer.weight)
    x = torch.ones(1, 1, 160, 160, requires_grad=True)
    out = discriminator(x)[0]
    side = round(len(out) ** 0.5)
    out[(side // 2) * side + side // 2].backward()
    gradient = x.grad[0, 0].nonzero()
    assert (gradient.max(0).values - gradient.min(0).values + 1).tolist() == [patch, patch]


def test_pix2pix_pays_for_the_difference_and_for_what_is_not_believed():
    model, batch = model_and_batch("pix2pix", tiny.pairs(), l1=7.0, adversarial=2.0, features=3.0)
    output = model.generator(batch.a.x)
    pair, true = (torch.cat([batch.a.x, y], 1) for y in (output, batch.b.x))
    result = losses(model, batch)
    near = (output - batch.b.x).abs().mean()
    fooled = 0.5 * (model.discriminator(pair) - 1).square().mean()
    levels = zip(model.discriminator.features(pair), model.discriminator.features(true),
                 strict=True)
    apart = torch.stack([(a - b).abs().mean() for a, b in levels]).mean()
    torch.testing.assert_close(result["generator"].total, 7 * near + 2 * fooled + 3 * apart)
    loss = result["discriminator"].total
    expected = 0.5 * ((model.discriminator(true) - 1).square().mean()
                    + model.discriminator(pair).square().mean())
    torch.testing.assert_close(loss, expected)


def test_cycle_gan_pays_for_cycles_that_are_not_consistent():
    data = tiny.pairs()
    twin = PairDataset(data.a, data.a, aligned=False)  # as many channels
    model, batch = model_and_batch("cycle-gan", twin, cycle=3.0, identity=2.0, replay_buffer=0)
    a, b = batch.a.x, batch.b.x
    result = losses(model, batch)["generators"]
    fake_b, fake_a = model.G_AB(a), model.G_BA(b)
    cycle = (model.G_BA(fake_b) - a).abs().mean() + (model.G_AB(fake_a) - b).abs().mean()
    same = (model.G_BA(a) - a).abs().mean() + (model.G_AB(b) - b).abs().mean()
    fooled = 0.5 * ((model.D_B(fake_b) - 1).square().mean()
                    + (model.D_A(fake_a) - 1).square().mean())
    torch.testing.assert_close(result.total, fooled + 3 * cycle + 2 * same)
    other = PairBatch(Batch(a), Batch(torch.cat([b, b], 1)))
    assert "identity" not in losses(model_and_batch("cycle-gan", tiny.domains())[0],
                                    other)["generators"].terms


def test_pairs_and_neighbours_are_flipped_together_and_the_same_in_every_phase():
    x = torch.arange(24.0).reshape(2, 1, 3, 4)
    batch = PairBatch(Batch(x, neighbour=x + 200, label=torch.tensor([3, 4])), Batch(x + 100))
    gradient = flipped(batch, torch.tensor([True, False]))
    for image, more in ((gradient.a.x, 0), (gradient.b.x, 100), (gradient.a.neighbour, 200)):
        assert torch.equal(image[0], x[0].flip(-1) + more)
        assert torch.equal(image[1], x[1] + more)
    assert torch.equal(gradient.a.label, batch.a.label)
    assert gradient.b.neighbour is None
    model, batch = model_and_batch("pix2pix", tiny.pairs(), horizontal_flip=True)
    first = flipped(batch, step().noise.uniform(len(batch)) < 0.5)
    turned = (first.a.x != batch.a.x).flatten(1).any(1)
    assert 0 < turned.sum() < len(batch)
    plain = model_and_batch("pix2pix", tiny.pairs())[0]
    for phase, loss in losses(model, batch).items():
        torch.testing.assert_close(loss.terms, losses(plain, first)[phase].terms)


def test_recordings_are_not_flipped():
    x = tiny.pairs().a.x
    side = Dataset(x, Recordings(x.shape[1:], sound=Sound(8000, 16, 4, 80.0)))
    with pytest.raises(ConfigError, match="it backwards"):
        model_and_batch("pix2pix", PairDataset(side, side), horizontal_flip=True)


@pytest.mark.parametrize("name, data, to", [("pix2pix", tiny.pairs, "B"),
                                            ("cycle-gan", tiny.domains, "A")])
def test_dropout_is_noise_that_is_drawn_in_use_as_it_was_in_training(name, data, to):
    model, batch = model_and_batch(name, data(), network="unet", depth=2, dropout=0.5)
    x = batch.a.x if to == "B" else batch.b.x
    with dropout_rng(Noise(1), len(x), strength=0.1):  # as in the first passes over the data
        learnt = model.generator_to(to)(x)
    assert torch.equal(learnt, model.translate(x, to=to, noise=Noise(1)))
    assert not torch.equal(learnt, model.translate(x, to=to, noise=Noise(2)))


def test_the_replay_buffer_gives_what_it_takes():
    pool, fakes = torch.zeros(6, 2), torch.arange(16.0).view(8, 2)
    with pytest.raises(ConfigError, match="replay_buffer=6 holds fewer than a batch of 8"):
        replayed(pool, fakes, 0, Noise(0))
    for n in (0, 3):  # it fills first, and everything is shown as it is
        fake_input, pool = replayed(pool, fakes[n:n + 3], n, Noise(n))
        assert torch.equal(fake_input, fakes[n:n + 3])
    assert torch.equal(pool, fakes[:6])
    swaps = []
    for seed in range(200):
        new = 100.0 + torch.arange(8.0).view(4, 2)
        fake_input, after = replayed(pool, new, 6, Noise(seed))
        before = torch.cat([pool, new]).sort(0).values
        assert torch.equal(torch.cat([after, fake_input]).sort(0).values, before)
        swaps.append((fake_input[:, 0] < 100).float().mean().item())
    assert np.mean(swaps) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(800))


def test_discriminators_see_fakes_of_earlier_steps():
    model, batch = model_and_batch("cycle-gan", tiny.domains(), replay_buffer=6)
    for index in range(2):
        losses(model, batch, index)
        assert model.replay_b.abs().sum() > 0
    earlier, gradient = model.replay_b.clone(), []
    model.D_B.register_forward_pre_hook(lambda _, inputs: gradient.append(inputs[0]))
    late = model.losses(PairBatch(replace(batch.a, x=batch.a.x + 1), batch.b), step(2))
    next(late)
    fake_input = gradient[0][len(batch):]  # beside the real ones
    old = [(earlier == image).flatten(1).all(1).any().item() for image in fake_input]
    assert 0 < sum(old) < 6
    assert torch.equal(model.replay_b, earlier)  # not before the step is done
    list(late)
    assert not torch.equal(model.replay_b, earlier)


def test_pairs_are_learnt(tmp_path):
    """The other side is a known function of the pixel: far better than the best constant."""
    data = tiny.pairs()
    model, _ = tiny.train(tmp_path, "pix2pix", data, tiny.small("pix2pix", width=8, features=1.0),
                          training=tiny.options(images=4800, learning_rate=4e-3))
    batch = Batches(data, 90).at(0)
    with torch.no_grad():
        error = (model.translate(batch.a.x) - batch.b.x).abs().mean()
    constant = (batch.b.x - batch.b.x.median(0).values).abs().mean()
    assert error < 0.5 * constant


@pytest.mark.parametrize("name, data, generator, discriminator",
                         [("pix2pix", tiny.pairs, "generator", "discriminator"),
                          ("cycle-gan", tiny.domains, "G_AB", "D_A")])
def test_discriminators_can_be_narrower_than_generators(name, data, generator, discriminator):
    for layers, width in ((3, 3), (0, 5)):
        model, _ = model_and_batch(name, data(), width=5, discriminator_width=layers)
        firsts = [next(getattr(model, part).parameters()) for part in (generator, discriminator)]
        assert [len(first) for first in firsts] == [5, width]


@pytest.fixture
def run(tmp_path):
    """A model of pairs of files, and the files."""
    rng = np.random.default_rng(0)
    for side, shape in (("A", (16, 16)), ("B", (16, 16, 3))):
        (tmp_path / "data" / side).mkdir(parents=True)
        for i in range(12):
            image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
            image.save(tmp_path / "data" / side / f"p{i:02d}.png")
    latlas.train("pix2pix", str(tmp_path / "data"), out=tmp_path / "run", images=16, width=4,
                 threads=1, precision="fp32", progress=False)
    return tmp_path / "run"


def test_a_folder_is_translated_file_by_file_and_goes_on(run, capsys):
    data, out = run.parent / "data" / "A", run.parent / "made"
    line = ["translate", str(run), "--data", str(data), "--out", f"{out}/"]
    assert cli.run(line) == 0
    assert "wrote 12 images" in capsys.readouterr().out
    files = sorted(out.glob("*.png"))
    assert [f.name for f in files] == [f"p{i:02d}.png" for i in range(12)]
    before, output = files[3].read_bytes(), latlas.translate(run, str(data))
    fifth = files[5].read_bytes()
    assert output.shape == (12, 3, 16, 16) and output.dtype == np.uint8
    assert np.array_equal(np.asarray(Image.open(files[3])), output[3].transpose(1, 2, 0))
    files[5].unlink()
    files[3].write_bytes(b"mine")
    assert cli.run(line) == 0
    assert "wrote 1 image to" in (said := capsys.readouterr().out) and "11 were there" in said
    assert files[3].read_bytes() == b"mine" != before
    assert files[5].read_bytes() == fifth  # as if it had not been interrupted
    assert out.with_name("made-sheet.png").exists()


def test_a_sheet_of_pairs_shows_what_was_wanted(run, capsys):
    sheet = run.parent / "sheet.png"
    assert cli.run(["translate", str(run), "--split", "train", "--n", "2", "--out",
                    str(sheet)]) == 0
    assert "input | output | target" in capsys.readouterr().out
    fake_input = np.asarray(Image.open(sheet).convert("RGB"))
    train = latlas.data.split(open_source(str(run.parent / "data")), "train")
    across, down = fake_input.shape[1] / 3, fake_input.shape[0] / 2
    for column, x in enumerate((train.a.take("x"), None, train.b.take("x"))):
        for row in range(2):
            middle = fake_input[int(down * (row + 0.5)), int(across * (column + 0.5))].tolist()
            assert x is None or middle in [list(np.broadcast_to(x[row][:, i, j], 3))
                                           for i in range(16) for j in range(16)]


@pytest.mark.parametrize(("words", "more"), [
    ("Pix2Pix translates to B alone", ["--to", "A"]),
    ("name a folder/", ["--out", "made.csv"]),
])
def test_what_cannot_be_translated_is_said(run, capsys, words, more):
    assert cli.run(["translate", str(run), *more]) == 2
    assert words in capsys.readouterr().err


def test_other_models_and_other_pictures_are_refused(run, tmp_path):
    latlas.train("ae", "digits", out=tmp_path / "ae", images=64, threads=1, progress=False)
    with pytest.raises(CapabilityError, match="cannot translate; `translate` needs two domains"):
        latlas.translate(tmp_path / "ae", "digits")
    with pytest.raises(DataError):
        latlas.translate(run, np.zeros((2, 3, 16, 16), np.uint8))
    with pytest.raises(DataError, match="needs data of two sides"):
        latlas.train("pix2pix", "digits", out=tmp_path / "x", images=16, progress=False)
    assert not (tmp_path / "x").exists()


def test_metrics_of_pairs_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (3, 2, 16, 19)).astype(np.uint8) for _ in range(2))
    far = np.abs(a.astype(float) - b)
    np.testing.assert_allclose(paired.l1(a, b, 255), far.mean((1, 2, 3)) / 255)
    np.testing.assert_allclose(paired.psnr(a, b, 255),
                               10 * np.log10(255**2 / np.square(far).mean((1, 2, 3))))
    assert paired.psnr(a, a, 255).tolist() == [np.inf] * 3
    np.testing.assert_allclose(paired.ssim(a, a, 255), 1)
    np.testing.assert_allclose(paired.ssim(a, b, 255), [similarity(x, y) for x, y in
                                                        zip(a, b, strict=True)])
    flat = np.full((1, 1, 8, 8), 3.0), np.full((1, 1, 8, 8), 5.0)  # no variance: light alone
    c = (0.01 * 16) ** 2
    np.testing.assert_allclose(paired.ssim(*flat, 16), (2 * 15 + c) / (9 + 25 + c))


def similarity(a, b):
    """SSIM window by window, by its definition."""
    at = np.arange(11) - 5
    weight = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weight /= weight.sum()
    c1, c2, result = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for x, y in zip(a.astype(float), b.astype(float), strict=True):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                p, q = x[i:i + 11, j:j + 11], y[i:i + 11, j:j + 11]
                mp, mq = (weight * p).sum(), (weight * q).sum()
                vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
                shared = (weight * (p - mp) * (q - mq)).sum()
                result.append((2 * mp * mq + c1) * (2 * shared + c2)
                             / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(result)


class Perfect(Pix2Pix):
    """What belongs to a blob is known."""

    def translate(self, x, *, to="B", noise=None):
        return torch.cat([torch.div((x + 1) * 8, 2, rounding_mode="floor") / 8 - 1, -x], 1)


def test_a_perfect_translator_has_perfect_metrics():
    data = tiny.pairs(n=400)
    model = Perfect(tiny.small("pix2pix"), data.space).eval()
    train, test = data.subset(slice(0, 300)), data.subset(slice(300, None))
    result = {f.key: f for f in evaluated(model, train=train, test=test, features="pixels").metrics}
    assert result["l1"].value == 0 and result["l1"].control > 0.01
    assert result["ssim"].value == pytest.approx(1) and result["psnr"].value == np.inf
    assert result["sliced"].value == pytest.approx(0, abs=1e-6)
    assert result["sliced"].control > 0.01
    assert "cycle" not in result


def test_cycle_consistency_is_measured_to_either_domain():
    data = tiny.domains()
    model = tiny.build("cycle-gan", data, tiny.small("cycle-gan")).eval()
    for to in "AB":
        result = {f.key: f for f in evaluated(model, train=data, test=data, to=to).metrics}
        layers = torch.cat([b.x for b in Sweep(data.a if to == "B" else data.b, 90)])
        with torch.no_grad():
            there, back = (model.G_AB, model.G_BA)[::1 if to == "B" else -1]
            lost = (back(there(layers)) - layers).abs().mean().item() / 2
        assert result["cycle"].value == pytest.approx(lost, abs=0.02)  # levels are whole
        assert "l1" not in result and "frechet" in result
    with pytest.raises(ConfigError, match="translates to"):
        evaluated(tiny.build("pix2pix", tiny.pairs(), tiny.small("pix2pix")), train=tiny.pairs(),
                test=tiny.pairs(), to="A")
    with pytest.raises(DataError, match="the data have one side"):
        evaluated(model, train=data.a, test=data.a)


def test_domains_of_two_sizes_are_refused_with_what_to_do():
    data = tiny.domains()
    large = Dataset(data.b.x.repeat(2, 2).repeat(2, 3), Images((2, 16, 16), 17))
    both = PairDataset(data.a, large, aligned=False)
    with pytest.raises(DataError, match=r"A is of 8×8, B of 16×16 pixels.*image_size="):
        tiny.build("cycle-gan", both, tiny.small("cycle-gan"))


def test_what_plays_no_part_is_not_announced():
    data = tiny.pairs()
    for weight, said in ((1.0, "least-squares, no penalty"), (0.0, "no discriminator")):
        model = tiny.build("pix2pix", data, tiny.small("pix2pix", adversarial=weight))
        assert model.describe(len(data)) == said


@pytest.mark.parametrize(("name", "rows"), [("pix2pix", {"B": 3}),
                                            ("cycle-gan", {"B": 2, "A": 2})])
def test_a_report_shows_translations_each_way(name, rows):
    data = tiny.pairs() if name == "pix2pix" else tiny.domains()
    model = tiny.build(name, data, tiny.small(name))
    text = build_page([Subject("mine", model)], train=data, test=data)
    result = {to: section_of(text, to).count("<li>") for to in "BA"
             if f'id="translations-to-{to.lower()}"' in text}
    assert result == rows


def section_of(text, to):
    return text[text.index(f'id="translations-to-{to.lower()}"'):].split("</section>")[0]


def test_a_report_judges_every_way_or_the_one_asked_for(tmp_path, capsys):
    run = tmp_path / "ring"
    data = tiny.pairs()
    np.savez(tmp_path / "two.npz", A=data.a.x, B=data.b.x)
    latlas.train("cycle-gan", open_source(tmp_path / "two.npz", paired=False), out=run, images=8,
                 batch_size=4, width=2, network="unet", threads=1, progress=False)
    assert cli.run(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    for domain in "AB":
        cycle = latlas.evaluate(run, to=domain, metrics=("translation",)).get("cycle")
        assert "<td" in section_of(text, domain) and f"ring to {domain}" in section_of(text, domain)
        assert cycle.text() in section_of(text, domain)
    assert cli.run(["report", str(run), "--to", "A", "--out", str(tmp_path / "a.html")]) == 0
    only = (tmp_path / "a.html").read_text()
    assert "Translations to A" in only and "Translations to B" not in only
    assert "ring to B" not in only
    capsys.readouterr()


def test_a_report_of_a_way_that_is_not_gone_is_refused(run, capsys):
    assert cli.run(["report", str(run), "--to", "A"]) == 2
    assert "--to A: Pix2Pix translates to B alone" in capsys.readouterr().err


def test_both_domains_are_heard_of_by_the_names_that_alarms_know():
    model, batch = model_and_batch("cycle-gan", tiny.domains(), penalty="r1")
    terms = losses(model, batch)["discriminators"].terms
    for name in ("discriminator", "D(real)", "D(fake)", "ada_signal", "r1"):
        mean = (terms[f"{name}/A"] + terms[f"{name}/B"]) / 2
        assert torch.equal(terms[name], mean)
    assert set(ALARMS["losing"].terms) <= terms.keys()
