"""How the judge of a data set with few clips is trained otherwise than that of one with enough."""

from collections.abc import Mapping

import torch
from torch import Tensor

from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation.fitting import Fitting

ENOUGH = 100  # clips of a class in all splits, from which on there is nothing special
STRETCH = 0.15  # of augmentation
ENOUGH_TO_TEST = 30  # clips of a class in the test split, from which on the judge's accuracy is measured on it alone
OF_FEW = Fitting(most_steps=300, ends_early=False)  # measured, see docs/experiments.md


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


def open_settings(given: Mapping[str, object]) -> dict[str, float]:
    """The settings of a classifier that are None, so that the number of clips decides, and what they are of few."""
    return {"stretch": STRETCH} if "stretch" in given and given["stretch"] is None else {}
