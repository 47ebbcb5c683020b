"""How often the judge of a small data set is right, when its test split is too small to tell: by cross-validation."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation.clips import MeasuredClips
from specgan.evaluation.few_clips import ENOUGH_TO_TEST, has_few_clips, n_examples
from specgan.evaluation.fitting import fit_classifier
from specgan.evaluation.judge import JudgeRecipe
from specgan.evaluation.metrics import Figure, share_of_groups
from specgan.files import atomic_path, load_tensors


@dataclass(frozen=True)
class CrossValidation:
    """What classifiers like the judge know of recordings that they were not trained on.

    Args:
        n_folds: parts of the data set; each was judged by a classifier that was trained on the others.
        accuracy: on the recordings, each once.
        chance: what who always guesses the most frequent class would have.
    """

    n_folds: int
    accuracy: Figure
    chance: float


@dataclass(frozen=True)
class _Examples:
    waveforms: Tensor
    labels: Tensor
    recordings: Tensor  # (N,) int64

    def __getitem__(self, index: Tensor) -> "_Examples":
        return _Examples(self.waveforms[index], self.labels[index], self.recordings[index])


def is_too_small(clips: MeasuredClips, split: SpectrogramDataset) -> bool:
    """Whether a split has too few clips to tell the judge's accuracy, in a data set that has few altogether."""
    counts = n_examples(clips.data, split)
    return has_few_clips(clips.data) and float(counts.median()) < ENOUGH_TO_TEST


def cross_validated(recipe: JudgeRecipe, clips: MeasuredClips) -> CrossValidation | None:
    """The accuracy of classifiers that are trained as the judge is, on all recordings of a data set.

    Each recording is judged by a classifier that was trained on others, of all splits; a class with a single recording
    is trained on alone. It is kept with the judge.

    Returns:
        None: `recipe.n_folds` is below 2, or no class has two recordings.
    """
    path = recipe.path(clips.data)
    kept = load_tensors(path)
    found = kept.get("cross_validation")
    if found is None or found["asked"] != recipe.n_folds:
        measured = _measured(recipe, clips) if recipe.n_folds > 1 else None
        values = None if measured is None else vars(measured)
        found = {"asked": recipe.n_folds, "found": values}
        _keep({**kept, "cross_validation": found}, path)
    return None if found["found"] is None else CrossValidation(**found["found"])


def _keep(judge: dict[str, object], path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(judge, temporary)


def _measured(recipe: JudgeRecipe, clips: MeasuredClips) -> CrossValidation | None:
    data = clips.data
    recorded, vocoded = _examples(clips, recipe.most_vocoded)
    of_class = [recorded.recordings[recorded.labels == label].unique() for label in range(len(data.class_names))]
    most = max(map(len, of_class))
    if most < 2:
        return None
    n_folds = min(recipe.n_folds, most)
    single = torch.isin(recorded.labels, torch.tensor([i for i, some in enumerate(of_class) if len(some) == 1]))
    is_right, seen = torch.zeros(len(recorded.labels), dtype=torch.bool), ~single
    folds = track(_folds(recorded, n_folds, seed=recipe.seed), "accuracy of the judge", total=n_folds, transient=True)
    for fold in folds:
        held_out = fold & seen
        if not held_out.any():
            continue
        classifier = recipe.new_classifier(data)
        parts = [recorded[~held_out], vocoded[~torch.isin(vocoded.recordings, recorded.recordings[held_out])]]
        waveforms = torch.cat([part.waveforms for part in parts])
        labels = torch.cat([part.labels for part in parts])
        fit_classifier(
            classifier, waveforms, labels, seed=recipe.seed, device=clips.device, fitting=recipe.fitting(data)
        )
        is_right[held_out] = classifier.predict(recorded.waveforms[held_out]) == recorded.labels[held_out]
    accuracy = share_of_groups(is_right[seen], recorded.recordings[seen])
    chance = float(torch.bincount(recorded.labels[seen]).max() / seen.sum())
    return CrossValidation(n_folds, accuracy, chance)


def _examples(clips: MeasuredClips, most_vocoded: int) -> tuple[_Examples, _Examples]:
    """All clips of a data set as they are judged, and some of each split through the vocoder."""
    data, recorded, vocoded, first = clips.data, [], [], 0
    for split in (data.whole_train, data.val, data.test):
        if not len(split):
            continue
        places = clips.places(split)
        recordings = split.recordings[[index for index, _ in places]] + first
        recorded.append(_Examples(clips.waveforms(split, places), clips.labels(split, places), recordings))
        first = int(recordings.max()) + 1
        if clips.has_sounds:
            order = torch.randperm(len(places), generator=torch.Generator().manual_seed(clips.seed))[:most_vocoded]
            some = [places[index] for index in order.tolist()]
            vocoded.append(_Examples(clips.vocoded(split, some), clips.labels(split, some), recordings[order]))
    return _joined(recorded), _joined(vocoded) if vocoded else _joined(recorded)[torch.arange(0)]


def _joined(parts: list[_Examples]) -> _Examples:
    fields = (torch.cat([getattr(part, name) for part in parts]) for name in ("waveforms", "labels", "recordings"))
    return _Examples(*fields)


def _folds(examples: _Examples, n_folds: int, *, seed: int) -> Iterator[Tensor]:
    """Which examples (N,) are in each fold: whole recordings, of each class equally many."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    labels, recordings = examples.labels.numpy(), examples.recordings.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer recordings than there are folds
        dealt = list(folds.split(labels, labels, recordings))
    for _, held_out in dealt:
        fold = torch.zeros(len(labels), dtype=torch.bool)
        fold[torch.from_numpy(held_out)] = True
        yield fold
