"""The metric that a decoder, or the density of the codes, gives the latent space.

Every metric here is G(z) = w(z) J(z)ᵀJ(z), J the Jacobian of an embedding of the latents. Curves
then have a length and an energy that need no Jacobian: those of the embedded points.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.func import jvp, vmap
from torch.overrides import TorchFunctionMode

from latlas.core.distributions import Bernoulli, DiscretisedLogistic
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Decodes, HasStyles, Model

Array = NDArray[Any]
#: latents (n, d) to numbers (n, …)
Map = Callable[[Tensor], Tensor]
#: numbers of a Jacobian that are in memory at once
NUMBERS = 1 << 23
#: singular values of J below this share of the largest count as 0
RANK = 1e-6


@dataclass(frozen=True)
class Metric:
    """G(z) = w(z) J(z)ᵀJ(z).

    Attributes:
        embed: latents (n, d) to (n, D), differentiable, each row by itself.
        weight: latents (n, d) to w (n,) > 0; 1 if ``None``.
        codes: (n, d) latents of data, from which geodesics begin where a straight line leads to
            no good one.
        dtype: that the embedding computes in.
    """

    embed: Map
    weight: Map | None = None
    codes: Array | None = None
    dtype: torch.dtype = torch.float64

    def jacobian(self, z: Any) -> tuple[Tensor, Tensor]:
        """Embedded points (n, D) and J transposed, (n, d, D), by forward mode: all d directions in
        one batch."""
        z = latents(z, self.dtype)
        basis = torch.eye(z.shape[1], dtype=z.dtype)

        def along(direction: Tensor) -> Any:
            return jvp(self.embed, (z,), (direction.expand_as(z),))

        return vmap(along, out_dims=(None, 1))(basis)  # type: ignore

    @torch.no_grad()
    def tensors(self, z: Any) -> Array:
        """G (n, d, d), float64, of latents (n, d)."""
        z, parts = latents(z, self.dtype), []
        width = len(self.embed(z[:1])[0]) if len(z) else 1
        for rows in z.split(max(1, NUMBERS // (width * z.shape[1]))):
            j = self.jacobian(rows)[1]
            g = (j @ j.mT).double()
            parts.append(g if self.weight is None else g * self.weight(rows)[:, None, None])
        return np.asarray(torch.cat(parts))

    def magnification(self, z: Any) -> Array:
        """√det G (n,): volume of the embedded per volume of latents."""
        return np.sqrt(np.clip(np.linalg.det(self.tensors(z)), 0, None))

    def on_plane(self, centre: Any, axes: Any) -> Metric:
        """That of the plane c + uA of coordinates u (n, k), for a centre (d,) and axes (k, d)."""
        c, a = (torch.as_tensor(v, dtype=self.dtype) for v in (centre, axes))
        weight = self.weight
        return Metric(lambda u: self.embed(c + u @ a), None if weight is None else
                      lambda u: weight(c + u @ a), dtype=self.dtype)

    def condition_number(self, z: Any) -> Array:
        """(n,) longest by shortest stretch of a direction, a ratio of singular values of J; ∞ where
        J has no full rank."""
        return rank_and_condition(self.tensors(z))[1]

    def rank(self, z: Any) -> Array:
        """(n,) rank of J."""
        return rank_and_condition(self.tensors(z))[0]

    def steps(self, path: Tensor) -> Tensor:
        """Squared lengths (p, N) of the straight steps of embedded paths (p, N + 1, d): the chord,
        times the mean weight of its ends."""
        flat = path.flatten(0, 1)
        x = self.embed(flat).unflatten(0, path.shape[:2])
        square = x.diff(dim=1).square().sum(-1)
        if self.weight is None:
            return square
        w = self.weight(flat).unflatten(0, path.shape[:2])
        return square * (w[:, 1:] + w[:, :-1]) / 2

    @torch.no_grad()
    def length(self, path: Any) -> Array:
        """(p,) lengths of polygons (p, N + 1, d) of latents, or of one (N + 1, d)."""
        path = torch.as_tensor(path, dtype=self.dtype)
        return np.asarray(self.steps(path if path.dim() == 3 else path[None]).sqrt().sum(1))

    @torch.no_grad()
    def energy(self, path: Any) -> Array:
        """(p,) energies ∫ ‖γ'(t)‖² dt, t = 0 … 1, of paths as for :meth:`length`; at least the
        squared length, which it is at constant speed."""
        path = torch.as_tensor(path, dtype=self.dtype)
        steps = self.steps(path if path.dim() == 3 else path[None])
        return np.asarray(steps.sum(1) * steps.shape[1])


def rank_and_condition(g: Array) -> tuple[Array, Array]:
    """(n,) each, of J from G = JᵀJ (n, d, d)."""
    values = np.linalg.eigvalsh(g).clip(min=0)
    rank = (values > RANK**2 * values[:, -1:].clip(min=1e-300)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(values[:, -1] / values[:, 0])
    return rank, np.where(rank == g.shape[1], ratio, np.inf)


class _KeepsFloat64(TorchFunctionMode):
    """Models end in ``.float()``, which takes bf16 to fp32, and here would lose half the digits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


def decoder_of(model: Any, *, space: str = "z", condition: Tensor | None = None,
               dtype: torch.dtype = torch.float64) -> Map:
    """The mean that a model decodes to, in model units, as a map of latents (n, d) to (n, D).

    A copy of the model computes, on the CPU and in ``dtype``. A function of tensors, or a network,
    gives the mean itself.

    Args:
        space: ``w`` for the styles of a model that has some.
        condition: of a conditional model, (1, …), for all.

    CapabilityError: no decoder, or one that has draws and no mean.
    """
    if not isinstance(model, torch.nn.Module):
        return lambda z: model(z).flatten(1)
    twin: Any = copy.deepcopy(model).cpu().to(dtype).eval().requires_grad_(False)
    twin.to(memory_format=torch.contiguous_format)  # forward mode takes no other in batches
    named = {} if condition is None else {"condition": condition.cpu().to(
        dtype if condition.is_floating_point() else condition.dtype)}
    needs = HasStyles if space == "w" else Decodes
    if not isinstance(model, needs):
        if not isinstance(model, Model) and space == "z":
            return lambda z: twin(z).flatten(1)
        raise CapabilityError(f"{type(model).__name__.lower()} has no decoder of {space}; the "
                              "geometry of a latent space needs one")

    def decode(z: Tensor) -> Tensor:
        with _KeepsFloat64():
            if space == "w":
                return mean_of(twin.decode_w(z)).flatten(1)
            own = {k: v.expand(len(z), *v.shape[1:]) for k, v in named.items()}
            return mean_of(twin.decode(z, **own)).flatten(1)

    return decode


def encoder_of(model: Any, *, condition: Tensor | None = None) -> Map:
    """The mean that a model encodes to, of points (n, D) in model units, in float64 on the CPU."""
    twin: Any = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    twin.to(memory_format=torch.contiguous_format)

    def encode(x: Tensor) -> Tensor:
        named = {} if condition is None else {"condition": condition.cpu().expand(
            len(x), *condition.shape[1:])}
        with _KeepsFloat64():
            mean: Tensor = twin.encode(x.unflatten(1, tuple(model.space.shape)), **named).mean
        return mean.double()

    return encode


def mean_of(distribution: Any) -> Tensor:
    """The mean, without the edges of a clipped one; CapabilityError for a distribution that has
    draws alone."""
    if isinstance(distribution, Bernoulli):
        return 2 * torch.sigmoid(distribution.logits) - 1
    if isinstance(distribution, DiscretisedLogistic):
        # E clip(x, −1, 1), as the outer bins reach to −∞ and ∞: the clipped location has edges
        location, scale = distribution.location, distribution.log_scale.exp()
        return 1 - scale * (F.softplus((1 - location) / scale)
                            - F.softplus((-1 - location) / scale))
    try:
        mean: Tensor = distribution.mean
    except (AttributeError, NotImplementedError, TypeError):
        raise CapabilityError(f"{type(distribution).__name__}: this decoder has draws and no mean, "
                              "and draws are no surface; geometry needs a mean") from None
    return mean


def pullback(decoder: Any, *, dtype: torch.dtype = torch.float64, **options: Any) -> Metric:
    """G = JᵀJ of a decoder's mean: lengths of decoded curves, in model units.

    Args:
        decoder: a model, or a function of tensors (n, d) to (n, …).
        options: of :func:`decoder_of`.
    """
    return Metric(decoder_of(decoder, dtype=dtype, **options), dtype=dtype)


def ensemble(decoders: Sequence[Any], **options: Any) -> Metric:
    """The mean over decoders of one latent space, E[JᵀJ] (Syrota et al. 2024, arXiv:2408.07507):
    where they disagree on the way, it is long.

    Args:
        decoders: models or functions, as :func:`retrained_decoders` gives.
        options: of :func:`decoder_of`.
    """
    if not decoders:
        raise ConfigError("an ensemble needs one decoder or more")
    members = [decoder_of(decoder, **options) for decoder in decoders]

    def embed(z: Tensor) -> Tensor:
        return torch.cat([member(z) for member in members], 1) / math.sqrt(len(members))

    return Metric(embed)


def uncertain(decoder: Any, codes: Any, *, noise: float | None = None, growth: float = 100.0,
              centres: int = 64, seed: int = 0, **options: Any) -> Metric:
    """G = J_μᵀJ_μ + J_σᵀJ_σ, the expected metric of a decoder of mean μ and standard deviation σ
    (Arvanitidis et al. 2018, eq. 6), whatever the model's likelihood.

    σ is ``noise`` near the codes and ``growth`` times that far from them: 1/σ² is made of radial
    basis functions around centres of the codes, plus a floor. All outputs share its shape, so that
    one more coordinate, σ, embeds it.

    Args:
        codes: (n, d) latents of data.
        noise: root mean square distance of an example to its reconstruction, model units; if
            ``None`` the median distance from a decoded code to the nearest other.
        centres: of the codes, by k-means.
    """
    decode, z = decoder_of(decoder, **options), latents(codes)
    if noise is None:
        some = decode(z[:1000]).detach()
        distance = torch.cdist(some, some).fill_diagonal_(math.inf).amin(1)
        noise = float(distance.median())
    precision = _radial_basis(z, centres, seed)
    floor = growth**-2.0

    def embed(z: Tensor) -> Tensor:
        sigma = noise * (precision(z) * (1 - floor) + floor).rsqrt()
        return torch.cat([decode(z), sigma[:, None]], 1)

    return Metric(embed, codes=np.asarray(z))


def density(codes: Any, *, floor: float = 1e-4, centres: int = 64, seed: int = 0) -> Metric:
    """G = (p₀ / p(z))^(2/d) I: the magnification is the inverse density p of the codes, relative to
    its median p₀ at them, so that geodesics follow the data. It needs no decoder.

    Args:
        codes: (n, d) latents of data.
        floor: density that is added everywhere, a share of p₀.
        centres: of the codes, by k-means; p is a mixture of normals, one around each.
    """
    z = latents(codes)
    d, (points, width, members) = z.shape[1], _clusters(z, centres, seed)

    def log_density(z: Tensor) -> Tensor:
        square = _squared_distances(z, points)
        return torch.logsumexp(members.log() - d * width.log() - square / (2 * width**2), 1)

    level = log_density(z).median()

    def weight(z: Tensor) -> Tensor:
        share = torch.exp(log_density(z) - level) + floor
        return share ** (-2 / d)

    return Metric(lambda z: z, weight, np.asarray(z))


def latents(z: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """(n, d) of ``dtype`` on the CPU; DataError for another shape, or numbers not finite."""
    tensor = torch.as_tensor(z, dtype=dtype, device="cpu").detach()
    if tensor.dim() != 2 or not bool(torch.isfinite(tensor).all()):
        raise DataError(f"latents must be finite numbers (n, d), got shape {tuple(tensor.shape)}")
    return tensor


def _squared_distances(z: Tensor, points: Tensor) -> Tensor:
    """(n, k); ``torch.cdist`` has no second derivative by forward mode."""
    return (z[:, None] - points).square().sum(-1)


def _clusters(z: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (k, d) of k-means, their widths (k,), root mean square distances of members per
    dimension, and numbers of members (k,)."""
    k = max(1, min(k, len(z) // 4))
    if len(z) < 2:
        raise DataError(f"a metric that knows where the data are needs 2 codes or more, got "
                        f"{len(z)}")
    points, label = kmeans2(np.asarray(z), k, minit="++", seed=seed)
    members = np.bincount(label, minlength=k)
    square = np.square(np.asarray(z) - points[label]).sum(1)
    spread = np.bincount(label, square, k) / np.maximum(members, 1) / z.shape[1]
    # a lone code has no width of its own
    spread = np.where((members > 1) & (spread > 0), spread, spread[spread > 0].mean()
                      if (spread > 0).any() else 1.0)
    some = members > 0
    return (torch.as_tensor(points[some]), torch.as_tensor(np.sqrt(spread[some])),
            torch.as_tensor(members[some].astype(np.float64)))


def _radial_basis(z: Tensor, k: int, seed: int) -> Map:
    """A smooth function that is near 1 at the codes and 0 far from them: 1 − exp(−a Σ_k v_k), v_k
    radial basis functions around centres of the codes (Arvanitidis et al. 2018, section 3.3). The
    exponential makes it flat where the codes are, however many of them are near; 95% of the codes
    get 0.95 or more."""
    points, width, _ = _clusters(z, k, seed)
    # neighbouring functions overlap
    rate = 0.5 / (1.25 * width * math.sqrt(z.shape[1]))**2

    def basis(z: Tensor) -> Tensor:
        return torch.exp(-rate * _squared_distances(z, points)).sum(1)

    slope = math.log(20) / basis(z[:5000]).quantile(0.05).clamp(min=1e-300)
    return lambda z: -torch.expm1(-slope * basis(z))
