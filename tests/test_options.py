"""Options: texts become checked values; what does not fit is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest

from latlas.core.errors import ConfigError
from latlas.core.options import fields_of, option, parse, to_json
from latlas.engine.options import TrainOptions, with_defaults
from latlas.training import plan_of


@dataclass(frozen=True)
class Config:
    latent_dim: int = option(16, "size of the code", low=1, high=4096)
    beta: float = option(1.0, "weight of the KL", low=0)
    likelihood: str = option("gaussian", "output", choices=("gaussian", "bernoulli"))
    hidden: tuple[int, ...] = option((512, 512), "layers", low=1)
    pair: tuple[float, float] = option((0.9, 0.999), "two numbers")
    bias: bool = option(True, "a switch")
    clip: float | None = option(None, "may be off")
    width: int | str = option("auto", "number or word")
    mode: Literal["a", "b"] = option("a", "of a Literal")


@pytest.mark.parametrize(("text", "number"), [
    ("7", 7), ("200_000", 200_000), ("2e6", 2_000_000), ("2M", 2_000_000), ("64k", 64_000),
    ("1.5k", 1500), (" 12 ", 12), ("1G", 10**9), (3, 3), (4.0, 4)])
def test_whole_numbers(text: object, number: int) -> None:
    assert parse(TrainOptions, {"images": text}).images == number


def test_large_whole_numbers_keep_every_digit() -> None:
    seed = 2**62 + 1
    assert parse(TrainOptions, {"seed": seed}).seed == seed


@pytest.mark.parametrize(("name", "text", "value"), [
    ("beta", "1e-3", 1e-3), ("beta", "4", 4.0), ("beta", 2, 2.0), ("likelihood", "bernoulli",
     "bernoulli"), ("hidden", "200,4k", (200, 4000)), ("hidden", "64", (64,)),
    ("hidden", [3, 4], (3, 4)), ("hidden", "", ()), ("pair", "0.5, 0.9", (0.5, 0.9)),
    ("bias", "no", False), ("bias", "On", True), ("bias", False, False), ("clip", "none", None),
    ("clip", None, None), ("clip", "0.5", 0.5), ("width", "12", 12), ("width", "auto", "auto"),
    ("mode", "b", "b")])
def test_every_type(name: str, text: object, value: object) -> None:
    got = getattr(parse(Config, {name: text}), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(("name", "text", "allowed"), [
    ("latent_dim", "0", "1 … 4096"), ("latent_dim", "5000", "1 … 4096"),
    ("latent_dim", "2.5", "whole number"), ("latent_dim", "many", "whole number"),
    ("latent_dim", True, "whole number"), ("latent_dim", "", "whole number"),
    ("latent_dim", "inf", "whole number"), ("latent_dim", None, "whole number"),
    ("beta", "-1", "at least 0"), ("beta", "nan", "a number"), ("beta", [1], "a number"),
    ("likelihood", "poisson", "one of gaussian, bernoulli"), ("hidden", "4,0", "at least 1"),
    ("pair", "1", "2 numbers"), ("bias", "maybe", "true or false"), ("clip", "x", "or none"),
    ("mode", "c", "one of a, b")])
def test_a_misfit_names_field_value_and_range(name: str, text: object, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Config, {name: text})
    message = str(caught.value)
    assert message.startswith(f"--set {name}=")
    assert allowed in message
    assert "\n" not in message


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"my\.toml: unknown option 'latentdim'.*'latent_dim'"):
        parse(Config, {"latentdim": "3"}, "my.toml")


def test_a_plan_gives_the_model_and_training_their_own() -> None:
    plan = plan_of("beta-vae", {"beta": "2", "batch_size": "64"})
    assert (plan.config.beta, plan.options.batch_size) == (2.0, 64)
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        plan_of("beta-vae", {"batchsize": "64"})


def test_json_round_trip() -> None:
    config = parse(Config, {"hidden": "3,4", "clip": "1.5", "bias": "no"})
    assert parse(Config, json.loads(json.dumps(to_json(config))), "run.json") == config


def test_every_default_satisfies_its_own_declaration() -> None:
    for cls in (Config, TrainOptions):
        assert parse(cls, vars(cls())) == cls()
    with pytest.raises(ConfigError, match="beta"):
        parse(Config, vars(Config(beta=-1.0)))


def test_fields_carry_help() -> None:
    info = {f.name: f for f in fields_of(TrainOptions)}
    assert all(f.help for f in info.values())
    assert info["schedule"].allowed == "one of cosine, constant, stages"
    assert info["images"].allowed == "a whole number or none, at least 1"


def test_at_most_one_budget() -> None:
    with pytest.raises(ConfigError, match="images and epochs: give at most one budget"):
        TrainOptions(images=10, epochs=1)


def test_a_given_budget_replaces_the_models_own() -> None:
    options = with_defaults({"images": 100, "batch_size": 32}, {"minutes": "5"})
    assert (options.images, options.minutes, options.batch_size) == (None, 5.0, 32)
    assert with_defaults({"images": 100}, {"batch_size": "8"}).images == 100
