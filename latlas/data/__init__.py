"""Data: from anything the user names to items in memory, labelled and split."""

from latlas.data.dataset import Dataset
from latlas.data.info import info
from latlas.data.opening import open_pair, open_source, pack
from latlas.data.source import SPLITS, Source, split

__all__ = ["SPLITS", "Dataset", "Source", "info", "open_pair", "open_source", "pack", "split"]
