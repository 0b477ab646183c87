"""Data: from anything the user names to examples in memory, labelled and split."""

from latlas.data.dataset import SPLITS, Dataset, Source, split
from latlas.data.opening import open_pair, open_source, pack
from latlas.data.pairs import PairDataset, PairSource, info

__all__ = ["SPLITS", "Dataset", "PairDataset", "PairSource", "Source", "info", "open_pair",
           "open_source", "pack", "split"]
