"""Does each latent dimension stand for one known factor, and each factor for one dimension?

Every metric is a function of latents (n, d) and of the integer classes of the factors (n, f), and
lies between 0 and 1. A dimension whose variance is under 1% of the largest is silent: it is set
to 0 and carries nothing (Kim & Mnih 2018, section 4, leave out collapsed dimensions likewise).
"""

import numpy as np
from scipy.stats import entropy
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.tree import DecisionTreeClassifier

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, Index, matrix

#: bins of a latent dimension; bins of a factor with more than ``MOST_VALUES`` values
BINS, MOST_VALUES = 20, 100
#: share of the largest variance under which a dimension is silent
SILENT = 0.01
LEAST_ITEMS = 50
#: trees of the forest, least share of the examples in a leaf: smaller ones would learn noise
TREES, LEAF = 20, 0.01
#: points that a classifier learns from, as many that it is judged on, examples behind one point
POINTS, BATCH = 800, 64


def disentanglement(latents: Array, factors: Array, *, seed: int = 0) -> dict[str, float]:
    """Every metric of this module by its key, of latents (n, d) and factors (n, f), any numbers.

    DataError: under 50 examples, unequal numbers of them, fewer than two factors, or one that never
    changes.
    """
    z, v = prepared(latents), factor_classes(factors)
    if len(z) != len(v) or v.shape[1] < 2:
        raise DataError(f"{len(z)} latents and factors {v.shape}: need one row for each, and "
                        "two factors or more")
    shared = mutual_information(z, v)
    dci_names = "dci_disentanglement", "dci_completeness", "dci_informativeness"
    return {"mig": mig(shared, v), **dict(zip(dci_names, dci(z, v, seed=seed), strict=True)),
            "sap": sap(z, v, seed=seed), "factor_vae_score": factor_vae_score(z, v, seed=seed),
            "beta_vae_score": beta_vae_score(z, v, seed=seed), "modularity": modularity(shared, v)}


def oracle(factors: Array, dims: int, *, seed: int = 0) -> Float:
    """The best latents there are: the factors themselves, and noise up to ``dims`` dimensions."""
    v = factor_classes(factors).astype(np.float64)
    noise = np.random.default_rng(seed).standard_normal((len(v), max(0, dims - v.shape[1])))
    return np.concatenate([(v - v.mean(0)) / v.std(0), noise], 1)


def rotated(latents: Array, *, seed: int = 0) -> Float:
    """The same information entangled: standardised latents times a random rotation."""
    z = prepared(latents)
    square = np.random.default_rng(seed).standard_normal((z.shape[1], z.shape[1]))
    basis, triangle = np.linalg.qr(square)
    return np.asarray(z @ (basis * np.sign(np.diag(triangle))))


def prepared(latents: Array) -> Float:
    """(n, d) latents standardised, silent dimensions 0."""
    z = np.asarray(matrix(latents, "latents", LEAST_ITEMS), np.float64)
    z = z - z.mean(0)
    variance = z.var(0)
    active = variance > SILENT * variance.max()
    return np.where(active, z / np.sqrt(np.where(active, variance, 1.0)), 0.0)


def factor_classes(factors: Array) -> Index:
    """(n, f) numbers as classes 0 … v − 1 of each column, in order of value; a factor of more than
    100 values is cut into 20 classes of equally many examples."""
    classes = []
    for k, column in enumerate(np.asarray(matrix(factors, "factors", LEAST_ITEMS), np.float64).T):
        values, inverse = np.unique(column, return_inverse=True)
        if len(values) > MOST_VALUES:
            edges = np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1]))
            inverse = np.searchsorted(edges, column, side="right")
        if inverse.max() == 0:
            raise DataError(f"factor {k} has the same value for every example; leave it out")
        classes.append(inverse.astype(np.int64))
    return np.stack(classes, 1)


def mutual_information(z: Float, v: Index) -> Float:
    """(d, f) I(z_i; v_k) in nats, every dimension cut into 20 bins of equal width (plug-in)."""
    bins = [np.digitize(c, np.histogram_bin_edges(c, BINS)[1:-1]) for c in z.T]
    return np.array([[mutual_info_score(None, None, contingency=contingency_matrix(a, b))
                      for b in v.T] for a in bins])


def _entropies(v: Index) -> Float:
    return np.array([entropy(np.bincount(column)) for column in v.T])


def mig(shared: Float, v: Index) -> float:
    """Mutual information gap (Chen et al. 2018, eq. 6), mean over factors.

    1/H(v_k) · [I(z_i; v_k) of the dimension that has most − of the one that comes second], from
    ``shared``, :func:`mutual_information`; 1 if one dimension holds the whole factor, no other any.
    """
    return float((_lead(shared) / _entropies(v)).mean())


def _lead(scores: Float) -> Float:
    """(f,) best minus second best of every column; a single dimension leads by all it has."""
    ordered = np.sort(np.concatenate([scores, np.zeros((1, scores.shape[1]))]), 0)
    return np.asarray(ordered[-1] - ordered[-2])


def modularity(shared: Float, v: Index) -> float:
    """Does a dimension tell of one factor only? (Ridgeway & Mozer 2018.)

    1 − Σ_{k≠best} m_ik² / (m_i,best² (f − 1)), mean over the dimensions that tell of some factor:
    m_ik nats, more than chance gives ((bins − 1)(values − 1)/2n) by 1% of the factor's entropy.
    """
    chance = (BINS - 1) * v.max(0) / (2 * len(v))
    square = np.square(shared[((shared - chance) / _entropies(v)).max(1) > 0.01])
    if not len(square):
        return 0.0
    best = square.max(1)
    return float((1 - (square.sum(1) - best) / (best * (square.shape[1] - 1))).mean())


def dci(z: Float, v: Index, *, seed: int = 0) -> tuple[float, float, float]:
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018).

    A random forest (20 trees on all dimensions, leaves of at least 1% of the examples) predicts
    each factor from the latents of every second example. R_ik is the importance of dimension i for
    factor k, ρ_i the dimension's share of all importance. D = Σ_i ρ_i (1 − entropy of R_i· to base
    f), C = mean_k (1 − entropy of R_·k to base d). Informativeness is the balanced accuracy on the
    other examples, where the source has an error.
    """
    learn, judge = z[::2], z[1::2]
    forests = [RandomForestClassifier(TREES, max_features=None, min_samples_leaf=LEAF,
                                      random_state=seed).fit(learn, column) for column in v[::2].T]
    accuracy = [_balanced(column, forest.predict(judge))
                for forest, column in zip(forests, v[1::2].T, strict=True)]
    importance = np.stack([forest.feature_importances_ for forest in forests], 1)
    weight = importance.sum(1) / max(importance.sum(), 1e-300)
    return (float(weight @ _sharpness(importance)), float(_sharpness(importance.T).mean()),
            float(np.mean(accuracy)))


def _sharpness(rows: Float) -> Float:
    """1 − entropy of every row's shares, to the base of their number; 0 for a row of zeros."""
    total = rows.sum(1, keepdims=True)
    shares = np.where(total > 0, rows / np.where(total > 0, total, 1), 1 / rows.shape[1])
    return np.asarray(1 - entropy(shares, axis=1) / np.log(max(2, rows.shape[1])))


def sap(z: Float, v: Index, *, seed: int = 0) -> float:
    """Separated attribute predictability (Kumar et al. 2018, section 3), mean over factors.

    Balanced accuracy of the dimension that predicts the factor best − of the one that comes
    second. Thresholds on one dimension predict (a tree of up to two leaves a value); they are set
    on every second example and judged on the others.
    """
    scores = np.zeros((z.shape[1], v.shape[1]))
    for i, column in enumerate(z.T):
        for k, factor in enumerate(v.T):
            tree = DecisionTreeClassifier(max_leaf_nodes=2 * (int(factor.max()) + 1),
                                          class_weight="balanced", random_state=seed)
            tree.fit(column[::2, None], factor[::2])
            scores[i, k] = _balanced(factor[1::2], tree.predict(column[1::2, None]))
    return float(_lead(scores).mean())


def _balanced(truth: Index, predicted: Index) -> float:
    """Accuracy, mean over the classes that occur."""
    sizes = np.bincount(truth)
    return float((np.bincount(truth, predicted == truth)[sizes > 0] / sizes[sizes > 0]).mean())


def factor_vae_score(z: Float, v: Index, *, seed: int = 0) -> float:
    """Accuracy of the majority vote (Kim & Mnih 2018, section 4).

    In 64 examples that agree in one factor, the dimension of least variance votes for that factor;
    of 1,600 such votes one half makes the rule, the other is judged by it. 1/f is chance.
    """
    rng = np.random.default_rng(seed)
    active = z[:, z.var(0) > 0] if z.any() else z
    least, factor_of = [], rng.integers(v.shape[1], size=2 * POINTS)
    for k in factor_of:
        first = rng.integers(len(z))
        rows = rng.choice(np.flatnonzero(v[:, k] == v[first, k]), BATCH)
        least.append(active[rows].var(0).argmin())
    table = np.zeros((z.shape[1], v.shape[1]))
    np.add.at(table, (least[:POINTS], factor_of[:POINTS]), 1)
    return float((table.argmax(1)[least[POINTS:]] == factor_of[POINTS:]).mean())


def beta_vae_score(z: Float, v: Index, *, seed: int = 0) -> float:
    """Accuracy of a linear classifier (Higgins et al. 2017, section 3).

    It is told the mean |z − z'| over 64 pairs that agree in one factor and says which; a logistic
    regression on 800 such points, judged on 800 more. 1/f is chance.
    """
    rng = np.random.default_rng(seed)
    factor_of = np.repeat(np.arange(v.shape[1]), -(-2 * POINTS // v.shape[1]))
    factor_of = rng.permutation(factor_of)[:2 * POINTS]
    first = rng.integers(len(z), size=(2 * POINTS, BATCH))
    second = np.empty_like(first)
    for k, column in enumerate(v.T):  # partners that agree with the first in factor k
        order, sizes = np.argsort(column, kind="stable"), np.bincount(column)
        begins = np.cumsum(sizes) - sizes
        value = column[first[factor_of == k]]
        second[factor_of == k] = order[
            begins[value] + (rng.random(value.shape) * sizes[value]).astype(np.int64)]
    distance = np.abs(z[first] - z[second]).mean(1)
    distance = (distance - distance.mean(0)) / np.maximum(distance.std(0), 1e-9)
    judge = LogisticRegression(max_iter=1000).fit(distance[:POINTS], factor_of[:POINTS])
    return float(judge.score(distance[POINTS:], factor_of[POINTS:]))
