"""How the judge of a data set with few clips is trained otherwise than that of one with enough."""

from collections.abc import Mapping

import torch
from torch import Tensor

from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation.fitting import Fitting

ENOUGH = 100  # clips of a class in all splits, from which on there is nothing special
STRETCH, WEIGHT_DECAY = 0.15, 0.05
ENOUGH_TO_TEST = 30  # clips of a class in the test split, from which on the judge's accuracy is measured on it alone
_OF_FEW = {"stretch": STRETCH, "weight_decay": WEIGHT_DECAY}
OF_FEW = Fitting(batch_size=32, most_steps=300, ends_early=False)  # measured, see docs/experiments.md


def has_few_clips(data: SpectrogramDataModule) -> bool:
    """Whether most classes have fewer than `ENOUGH` clips in all splits; longer ones count by their length."""
    splits = (data.whole_train, data.val, data.test)
    counts = torch.stack([n_examples(data, split) for split in splits]).sum(dim=0)
    return float(counts.median()) < ENOUGH


def n_examples(data: SpectrogramDataModule, split: SpectrogramDataset) -> Tensor:
    """How many examples of each class a split has: (n_classes,) float; longer clips give several."""
    longest = 1.0 if data.crop == "start" else None
    worth = (split.n_frames_of / data.params.n_frames).clamp(1.0, longest)
    return torch.bincount(split.labels, weights=worth, minlength=len(data.class_names))


def open_settings(given: Mapping[str, object]) -> list[str]:
    """The settings of a classifier that are None, so that the number of clips decides."""
    return [name for name in _OF_FEW if name in given and given[name] is None]


def settings_of_few(given: Mapping[str, object]) -> dict[str, float]:
    """The settings of a classifier that few clips need instead of the given ones."""
    settings = {name: _OF_FEW[name] for name in open_settings(given)}
    dropout = given.get("dropout")
    return {**settings, "dropout": min(0.5, 2 * dropout)} if isinstance(dropout, float) else settings
