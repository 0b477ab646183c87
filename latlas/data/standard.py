"""Well-known data sets: made here, or in files of their own kind.

``digits``: 1,797 real handwritten digits of 8×8 pixels and 17 levels, part of scikit-learn
(E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, test part).
``ring``, ``grid``, ``moons``, ``swiss-roll``: densities in the plane whose shape is known.
``shapes``: rendered sprites at any resolution, after dSprites (Matthey et al., 2017, with a
triangle added), of known factors drawn independently and uniformly: shape (square, ellipse, heart,
triangle), scale (6 values), orientation (40 angles), x and y (32 positions each), white on black;
optionally one of 8 hues. Files of IDX (MNIST and its kin) and CIFAR, as they are published.
"""

import colorsys
import gzip
import importlib.util
import math
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Images, Points
from latlas.data import arrays
from latlas.data.dataset import Dataset, Source, Store, encode_labels, joined_parts, make
from latlas.data.streams import (
    DEFLATE,
    Array,
    Header,
    claim,
    claim_unpacked,
    in_file,
    in_memory,
    read_exactly,
    readable,
    regular,
)

SHAPES = ("square", "ellipse", "heart", "triangle")
SCALES, ANGLES, POSITIONS, HUES = 6, 40, 32, 8
SYMMETRY = np.array([ANGLES // 4, ANGLES // 2, ANGLES, ANGLES])  # angles after which it repeats
RADIUS = 0.18  # of the largest sprite, as a share of the image's side
SPRITES = 64  # drawn at once: fits a processor's cache
#: NumPy's name of an IDX type code
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CIFAR_PIXELS = 3 * 32 * 32  # of a record
CIFAR_NAMES = {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt",
               "label": "batches.meta.txt"}
POINT_BYTES = 100  # of memory to make a point, or the factors of a shape
MOST_SIDE = 8192  # of an image of shapes
Floats = NDArray[np.float32]


def open_digits(*, label: str | None = None) -> Source:
    """Shape (1, 8, 8), integers 0 … 16; the label is the digit (``label=none`` leaves it out)."""
    if label not in (None, "none", "digit"):
        raise DataError(f"{say_option('label', label)}: the label of digits is the digit; leave "
                        f"it out, or say {say_option('label', 'none')}")
    spec = importlib.util.find_spec("sklearn")
    file = Path(spec.origin or "").parent / "datasets/data/digits.csv.gz" if spec else Path()
    if file.is_file():  # read directly: importing scikit-learn takes seconds
        with gzip.open(file, "rt", encoding="ascii") as lines:
            table = np.array([line.split(",") for line in lines], dtype=np.float64)
    else:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        table = np.column_stack([bunch.data, bunch.target])
    x = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    classes = () if label == "none" else tuple(str(d) for d in range(10))
    digit = table[:, -1].astype(np.int64) if classes else None
    return make("digits", Dataset(x, Images((1, 8, 8), 17, classes=classes), digit))


def open_ring(*, n: int = 10_000, seed: int = 0) -> Source:
    """Eight Gaussians on the unit circle, standard deviation 0.01; the label is the Gaussian."""
    angle = np.arange(8) * (2 * np.pi / 8)
    return _mixture("ring", np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01, n, seed)


def open_grid(*, n: int = 10_000, seed: int = 0) -> Source:
    """25 Gaussians at {−4, −2, 0, 2, 4}², standard deviation 0.05; the label is the Gaussian."""
    ticks = np.arange(-4.0, 5.0, 2.0)
    centres = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    return _mixture("grid", centres, 0.05, n, seed)


def _mixture(name: str, centres: NDArray[Any], sd: float, n: int, seed: int) -> Source:
    rng = _generator(n, seed)
    mode = rng.integers(0, len(centres), n)
    x = centres[mode] + sd * rng.standard_normal((n, 2))
    classes = tuple(f"({a:.3g}, {b:.3g})" for a, b in np.round(centres, 3) + 0.0)
    return make(name, Dataset(x.astype(np.float32), Points((2,), classes=classes), mode))


def open_moons(*, n: int = 10_000, seed: int = 0, noise: float = 0.05) -> Source:
    """Two interleaved half circles with Gaussian noise; the label is the half circle."""
    rng = _generator(n, seed, noise)
    mode, angle = rng.integers(0, 2, n), rng.uniform(0, np.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    x = np.where(mode[:, None] == 0, upper, lower) + noise * rng.standard_normal((n, 2))
    space = Points((2,), classes=("upper", "lower"))
    return make("moons", Dataset(x.astype(np.float32), space, mode))


def open_swiss_roll(*, n: int = 10_000, seed: int = 0, noise: float = 0.05) -> Source:
    """A spiral (t cos t, t sin t) / 5, t uniform in [3π/2, 9π/2]; t is its known factor."""
    rng = _generator(n, seed, noise)
    t = rng.uniform(1.5 * np.pi, 4.5 * np.pi, n)
    x = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 5
    x += noise * rng.standard_normal((n, 2))
    return make("swiss-roll", Dataset(x.astype(np.float32), Points((2,), factors=("t",)),
                                      factors=t[:, None].astype(np.float32)))


def _generator(n: int, seed: int, noise: float = 0.0) -> np.random.Generator:
    if n < 1:
        raise DataError(f"{say_option('n', n)}: a source needs at least one example")
    if seed < 0 or not 0 <= noise < math.inf:
        raise DataError(f"{say_option('seed', seed)}, {say_option('noise', noise)}: neither may be "
                        "negative, and the noise must be finite")
    claim(POINT_BYTES * n, f"{say_option('n', n)}: a source of so many points")
    return np.random.default_rng(seed)


def open_shapes(*, n: int = 10_000, image_size: int = 64, seed: int = 0, colour: bool = False,
                store: Store | None = None) -> Source:
    """Shape (1, S, S) or (3, S, S), antialiased; ``factors`` holds their values, label the shape.

    The orientation is in radians, positions are shares of the image's side, scale is relative.
    Images that are equal (a square turned by 90°) share a group.
    """
    if n < 1 or not 8 <= image_size <= MOST_SIDE or seed < 0:
        raise DataError(f"{say_option('n', n)}, {say_option('image_size', image_size)}, "
                        f"{say_option('seed', seed)}: shapes need n >= 1, 8 <= image_size <= "
                        f"{MOST_SIDE:,} and seed >= 0")
    claim(POINT_BYTES * n, f"{say_option('n', n)}: a source of so many shapes")
    sizes = [len(SHAPES), SCALES, ANGLES, POSITIONS, POSITIONS, HUES if colour else 1]
    index = np.random.default_rng(seed).integers(0, sizes, (n, len(sizes)))
    values, store = factor_values(index), store or Store()
    x = store.allocate((n, 3 if colour else 1, image_size, image_size), np.uint8)
    hues = np.array([colorsys.hsv_to_rgb(h / HUES, 0.8, 1.0) for h in range(HUES)], np.float32)
    for code, distance in enumerate((square, ellipse, heart, triangle)):
        rows = np.flatnonzero(index[:, 0] == code)
        for part in np.array_split(rows, max(1, -(-len(rows) // SPRITES))):
            cover = draw(distance, values[part], image_size)[:, None] * np.float32(255)
            tint = hues[index[part, 5]][:, :, None, None] if colour else np.float32(1)
            x[part] = np.rint(cover * tint).astype(np.uint8)
    store.done(n, n)
    names = ("shape", "scale", "orientation", "x", "y", *(("hue",) if colour else ()))
    space = Images(x.shape[1:], classes=SHAPES, factors=names)
    return make("shapes", Dataset(x, space, label=index[:, 0], factors=values[:, :len(names)],
                                  group=equal_images(index)))


def factor_values(index: NDArray[np.int64]) -> Floats:
    """Factor values (n, 6) of factor indices."""
    shape, scale, angle, x, y, hue = index.T
    place = 0.25 + 0.5 / (POSITIONS - 1) * np.stack([x, y])
    return np.stack([shape, 0.5 + 0.5 / (SCALES - 1) * scale, angle * (2 * np.pi / ANGLES),
                     *place, hue / HUES], axis=1).astype(np.float32)


def equal_images(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers that equal images share, whatever else there is."""
    key = index.copy()
    key[:, 2] %= SYMMETRY[key[:, 0]]
    sizes = (len(SHAPES), SCALES, ANGLES, POSITIONS, POSITIONS, HUES)
    return np.ravel_multi_index(tuple(key.T), sizes).astype(np.int64)


def draw(distance: Callable[[Floats, Floats], Floats], values: Floats, size: int) -> Floats:
    """Coverage (n, S, S) of each pixel by sprites with these factor values.

    The coverage is ½ − d, clipped to [0, 1], where d is the signed distance of the pixel's centre
    from the outline in pixels: a box filter of one pixel's width across the edge.
    """
    radius = values[:, 1] * np.float32(RADIUS)
    cos, sin = np.cos(values[:, 2]) / radius, np.sin(values[:, 2]) / radius
    ticks = (np.arange(size, dtype=np.float32) + 0.5) / size
    dx, dy = ticks - values[:, 3, None], ticks - values[:, 4, None]
    u = (cos[:, None] * dx)[:, None, :] + (sin[:, None] * dy)[:, :, None]
    v = (-sin[:, None] * dx)[:, None, :] + (cos[:, None] * dy)[:, :, None]
    pixels = distance(u, v) * (radius * size)[:, None, None]
    return np.clip(np.float32(0.5) - pixels, 0, 1)


# Signed distances of points (u, v) from outlines inside the unit disc, negative inside.

def square(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.7)


def ellipse(u: Floats, v: Floats) -> Floats:
    """Half axes 1 and ½; to first order k(k − 1)/|∇|, exact on the outline (I. Quilez)."""
    k = np.sqrt(u * u + 4 * v * v)
    return k * (k - 1) / np.maximum(np.sqrt(u * u + 16 * v * v), np.float32(1e-6))


def heart(u: Floats, v: Floats) -> Floats:
    """A square on its corner with half discs on its upper sides (I. Quilez), about its centroid."""
    stretch, centroid = np.float32(0.66), np.float32(0.6566)
    x, y = np.abs(u) * stretch, centroid - v * stretch
    lobe = np.hypot(x - np.float32(0.25), y - np.float32(0.75)) - np.float32(np.sqrt(2) / 4)
    along = np.float32(0.5) * np.maximum(x + y, 0)
    side = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - along) ** 2 + (y - along) ** 2))
    return (np.where(x + y > 1, lobe, side * np.sign(x - y)) / stretch).astype(np.float32)


def triangle(u: Floats, v: Floats) -> Floats:
    """Equilateral, corners at distance 0.9."""
    slope = np.abs(u) * np.float32(np.sqrt(3) / 2) - v / 2
    return np.maximum(slope, v) - np.float32(0.45)


# ------------------------------------------------------------------ files

def open_idx(path: Path, *, store: Store, label: str | None = None, levels: int | None = None,
             image_size: int | None = None, layout: str | None = None) -> Source:
    """One IDX file (LeCun's MNIST format, plain or gzipped) of examples, or a folder with train and
    test parts; labels are those of the file beside."""
    parts = {} if path.is_dir() else {"all": path}
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if "ubyte" not in file.name or "labels" in file.name:
            continue
        part = "test" if "t10k" in file.name or "test" in file.name else "train"
        first = parts.setdefault(part, file)  # a plain file goes before its gzipped copy
        if first.name.removesuffix(".gz") != file.name.removesuffix(".gz"):
            raise DataError(f"{path} holds {first.name} and {file.name}; name one of the files")
    if not parts:
        raise DataError(f"{path} holds IDX labels but no examples (such as "
                        "train-images-idx3-ubyte)")
    parts = dict(sorted(parts.items(), reverse=True))
    examples = {k: _idx(p) for k, p in parts.items()}
    how = arrays.Options(levels, image_size, layout)
    if label not in (None, "none"):
        raise DataError(f"{path}: IDX files have one kind of label; leave out "
                        f"{say_option('label', label)}")
    beside = []
    for file in parts.values():
        name = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        both = file.with_name(name), file.with_name(name + ".gz")
        beside += [p for p in both if p != file and p.exists()][:1]
    codes, classes = None, tuple[str, ...]()
    if len(beside) == len(parts) and label != "none":
        labels = [_idx(p) for p in beside]
        for some, of in zip(labels, examples.values(), strict=True):
            if some.shape != of.shape[:1]:
                raise DataError(f"{of.name}: {of.shape[0]:,} examples, but {some.name} holds "
                                f"labels of shape {some.shape}; {say_option('label', 'none')} "
                                "leaves them out")
        codes, classes = encode_labels(np.concatenate([r.whole() for r in labels]),
                                       f"{path}: labels")
    data = arrays.read_arrays(list(examples.values()), store, how).with_labels(codes, classes)
    return make(path.name.split(".")[0], data,
                parts=joined_parts({k: r.shape[0] for k, r in examples.items()}))


def _idx(path: Path) -> Array:
    """Two zero bytes, a type code, the number of axes, then each axis as big-endian uint32."""
    def header(stream: IO[bytes], name: str) -> Header:
        head = read_exactly(stream, 4, name)
        if head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not head[3]:
            raise DataError(f"{name} is not an IDX file (it starts with {head[:4].hex()})")
        axes = np.frombuffer(read_exactly(stream, 4 * head[3], name), ">u4")
        return tuple(int(a) for a in axes), False, np.dtype(IDX_TYPES[head[2]])

    opener, size = (gzip.open if path.suffix == ".gz" else Path.open), regular(path).stat().st_size
    most = DEFLATE * (size + 1) if path.suffix == ".gz" else size
    return in_file(lambda: opener(path, "rb"), str(path), most, header)


def open_cifar(path: Path, *, store: Store, label: str | None = None,
               image_size: int | None = None) -> Source:
    """CIFAR-10 and CIFAR-100, binary version (A. Krizhevsky, Learning Multiple Layers of Features
    from Tiny Images, 2009): a folder or ``.tar.gz`` of the batches, or one, of records of one or
    two label bytes and 3×32×32 pixels. Of CIFAR-100 ``label`` is ``fine`` (default) or ``coarse``.
    """
    files = _cifar_files(path)
    batches = sorted((n for n in files if n.endswith(".bin")),
                     key=lambda n: (n.startswith("test"), n))
    if not batches:
        raise DataError(f"{path} holds no CIFAR binary batches (.bin); the Python version is "
                        "pickled and never loaded, take the binary version")
    heads = {}  # label bytes of a record: one in CIFAR-10, two in CIFAR-100
    for name in sorted(batches):
        counts, size = (2, 1) if name in ("train.bin", "test.bin") else (1, 2), len(files[name])
        whole = [k for k in counts if size and size % (k + CIFAR_PIXELS) == 0]
        if not whole:
            raise DataError(f"{path}: {name} has {size:,} bytes, which is not a whole number "
                            "of CIFAR records; it may be truncated")
        heads[name] = whole[0]
    kinds = {"fine": 1, "coarse": 0} if heads[batches[0]] == 2 else {"label": 0}
    chosen = next(iter(kinds)) if label in (None, "none") else str(label)
    if chosen not in kinds:
        raise DataError(f"{path}: {unknown('label', chosen, kinds)}")
    listed = files.get(CIFAR_NAMES[chosen], b"")
    records = {n: np.frombuffer(files[n], np.uint8).reshape(-1, heads[n] + CIFAR_PIXELS)
               for n in batches}
    data = arrays.read_arrays([in_memory(r[:, heads[n]:], n) for n, r in records.items()],
                              store, arrays.Options(256, image_size, shape="3x32x32"))
    data = data.with_labels(*encode_labels(
        np.concatenate([r[:, kinds[chosen]] for r in records.values()]), f"{path}: labels",
        tuple(listed.decode("utf-8", "replace").split())))
    test = sum(len(r) for n, r in records.items() if n.startswith("test"))
    sizes = {"train": len(data) - test, "test": test}
    return make(path.name.split(".")[0], data,
                parts=joined_parts({k: n for k, n in sizes.items() if n}))


def _cifar_files(path: Path) -> Mapping[str, bytes]:
    """Contents of the batches and of the lists of class names, by file name."""
    def wanted(name: str) -> bool:
        return name.endswith(".bin") or name in CIFAR_NAMES.values()

    if path.is_dir() or path.suffix == ".bin":
        folder = path if path.is_dir() else path.parent
        places = [p for p in folder.iterdir() if wanted(p.name) and p.is_file() and (
            path.is_dir() or p == path or p.suffix != ".bin")]
        claim(sum(p.stat().st_size for p in places), path)
        return {p.name: p.read_bytes() for p in places}
    packed, size, files = path.stat().st_size, 0, dict[str, bytes]()
    with readable(path, "cannot be read as .tar.gz"), tarfile.open(path) as archive:
        for member in archive:
            size += member.size
            claim_unpacked(size, packed, path)
            name = PurePosixPath(member.name).name
            stream = archive.extractfile(member) if member.isfile() and wanted(name) else None
            if stream is not None:
                files[name] = read_exactly(stream, member.size, f"{path}: {name}")
    return files
