"""The judge of a data set: a classifier of its sounds that is trained once, kept in its folder, and then classifies."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.fingerprint import fingerprint
from specgan.data.folder import PARAMS_NAME
from specgan.data.manifest import MANIFEST_NAME, read_file
from specgan.evaluation.clips import MeasuredClips, has_sounds
from specgan.evaluation.metrics import Figure, share
from specgan.files import atomic_path, load_tensors
from specgan.models.classifier import Classifier
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)

_BATCH_SIZE = 64


@dataclass(frozen=True)
class JudgedSounds:
    """Sounds and what the judge makes of them.

    Args:
        waveforms: (N, T).
        labels: (N,) int64, of the classes that they should be.
        features: (N, n_features), in which distances are measured.
        logits: (N, n_classes).
    """

    waveforms: Tensor
    labels: Tensor
    features: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "JudgedSounds":
        return JudgedSounds(self.waveforms[index], self.labels[index], self.features[index], self.logits[index])

    @property
    def predictions(self) -> Tensor:
        """(N,) int64, the classes that the judge takes the sounds for."""
        return self.logits.argmax(dim=1)

    @property
    def is_right(self) -> Tensor:
        """(N,) of bool, whether these are the labels."""
        return self.predictions == self.labels


@dataclass(frozen=True)
class Judge:
    """A trained classifier, and what it says of the real clips.

    Args:
        classifier: on its device.
        reference: (N, n_features), the features of the training clips.
        reference_labels: (N,) int64.
        accuracy: on real clips, by split ("val", "test"), and through the vocoder ("vocoded_val", "vocoded_test").
    """

    classifier: Classifier
    reference: Tensor
    reference_labels: Tensor
    accuracy: dict[str, Figure]

    def judge(self, waveforms: Tensor, labels: Tensor) -> JudgedSounds:
        """Maps waveforms (N, T) and labels (N,) to what the judge makes of them."""
        return JudgedSounds(waveforms, labels, *self.classifier.judge(waveforms))

    def classify(self, waveforms: Tensor) -> list[tuple[str, float]]:
        """Maps waveforms (N, T) to the name of the likeliest class and its probability."""
        probabilities, classes = self.classifier.judge(waveforms)[1].softmax(dim=1).max(dim=1)
        names = [self.classifier.class_names[index] for index in classes.tolist()]
        return list(zip(names, probabilities.tolist(), strict=True))


class MakeClassifier(Protocol):
    """Makes an untrained classifier."""

    def __call__(
        self, *, sample_rate: int, n_samples: int, class_names: Sequence[str], **settings: int
    ) -> Classifier: ...


class MakeVocoder(Protocol):
    """Makes a vocoder: a module that maps spectrograms (B, 1, n_mels, n_frames) and seeds to waveforms (B, T)."""

    def __call__(self, params: SpectrogramParams, level_range: LevelRange) -> nn.Module: ...


@dataclass(frozen=True)
class JudgeRecipe:
    """How a judge is made; two recipes that differ make two judges.

    Args:
        classifier: makes the classifier, untrained.
        vocoder: makes what turns spectrograms into sound.
        most_clips: training examples at most.
        seed: of weights, order and choice.
    """

    classifier: MakeClassifier
    vocoder: MakeVocoder
    most_clips: int
    seed: int

    def clips(self, data: SpectrogramDataModule, device: torch.device) -> MeasuredClips:
        """The clips that the judge learns, and that generators are measured against."""
        vocoder = self.vocoder(data.params, data.level_range)
        return MeasuredClips(data, vocoder, most_clips=self.most_clips, seed=self.seed, device=device)

    def path(self, data: SpectrogramDataModule) -> Path:
        """Where the judge of a data set is kept: its name is a digest of all that the judge depends on."""
        contents = [read_file(data.dataset_dir, name) for name in (MANIFEST_NAME, PARAMS_NAME)]
        digest = fingerprint(
            recipe=vars(self),
            # A checkpoint's range, if the data have another one, changes what the vocoder makes of the clips.
            params=(data.params, data.level_range) if data.range_note else data.params,
            crop=data.crop,
            has_sounds=has_sounds(data),
            files=[hashlib.sha256(content).hexdigest() for content in contents],
        )
        return Path(data.local_dir) / f"judge-{digest}.pt"

    def new_classifier(self, data: SpectrogramDataModule, **settings: int) -> Classifier:
        """An untrained classifier of a data set; the global random state stays as it is."""
        with isolate_rng():
            torch.manual_seed(self.seed)
            return self.classifier(
                sample_rate=data.params.sample_rate,
                n_samples=data.params.n_samples,
                class_names=data.class_names,
                **settings,
            )


def load_or_train_judge(
    recipe: JudgeRecipe, data: SpectrogramDataModule, *, device: torch.device, retrain: bool = False
) -> Judge:
    """Loads the judge of a data set, or trains and keeps it where there is none yet, or if `retrain`.

    Raises:
        ValueError: the file that should be the judge is none.
    """
    path = recipe.path(data)
    if retrain or not path.is_file():
        _train_judge(recipe, data, path, device)
    return _load(recipe, data, path, device)


def load_judge(recipe: JudgeRecipe, data: SpectrogramDataModule, *, device: torch.device) -> Judge | None:
    """Loads the judge of a data set; None: it has not been trained.

    Raises:
        ValueError: as `load_or_train_judge`.
    """
    path = recipe.path(data)
    return _load(recipe, data, path, device) if path.is_file() else None


def _load(recipe: JudgeRecipe, data: SpectrogramDataModule, path: Path, device: torch.device) -> Judge:
    classifier = recipe.new_classifier(data)
    try:
        kept = load_tensors(path)
        classifier.load_state_dict(kept["state_dict"])
        classifier.to(device).eval()
        return Judge(classifier, kept["reference"], kept["reference_labels"], kept["accuracy"])
    except Exception as err:
        raise ValueError(f"{path}: not a judge that specgan trained; remove it, and it is trained again") from err


def _train_judge(recipe: JudgeRecipe, data: SpectrogramDataModule, path: Path, device: torch.device) -> None:
    clips = recipe.clips(data, device)
    log.info("training the judge of %s: once for this data set, a minute or two", path.parent)
    labels = clips.labels(data.train)
    vocoded = clips.vocoded(data.train, description="training clips through the vocoder")
    real = clips.waveforms(data.train) if clips.has_sounds else vocoded
    waveforms = torch.cat([real, vocoded]) if clips.has_sounds else vocoded
    classifier = recipe.new_classifier(data)
    fit_classifier(classifier, waveforms, labels.repeat(len(waveforms) // len(labels)), seed=recipe.seed, device=device)
    accuracy = _accuracy(classifier, clips)
    log.info("judge: %s", ", ".join(f"{name} accuracy {figure['value']:.3f}" for name, figure in accuracy.items()))
    kept = {
        "state_dict": classifier.state_dict(),
        "reference": classifier.judge(real)[0],
        "reference_labels": labels,
        "accuracy": accuracy,
    }
    with atomic_path(path) as temporary:
        torch.save(kept, temporary)


def fit_classifier(
    classifier: Classifier, waveforms: Tensor, labels: Tensor, *, seed: int, device: torch.device
) -> None:
    """Trains a classifier for its `n_steps` steps; the global random state stays as it is.

    Args:
        classifier: it is on `device` afterwards.
        waveforms: (N, T).
        labels: (N,) int64.
        seed: of order and augmentation.
        device: of torch.
    """
    if len(labels) == 1:  # batch normalisation needs two
        waveforms, labels = waveforms.repeat(2, 1), labels.repeat(2)
    with isolate_rng():
        torch.manual_seed(seed)
        batch_size = min(_BATCH_SIZE, len(labels))
        loader = DataLoader(TensorDataset(waveforms, labels), batch_size, shuffle=True, drop_last=True)
        trainer = L.Trainer(
            max_steps=classifier.n_steps,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(classifier, loader)
    classifier.to(device).eval()


def _accuracy(classifier: Classifier, clips: MeasuredClips) -> dict[str, Figure]:
    accuracy = {}
    for name, split in (("val", clips.data.val), ("test", clips.data.test)):
        if len(split):
            labels = clips.labels(split)
            if clips.has_sounds:
                accuracy[name] = share(classifier.predict(clips.waveforms(split)) == labels)
            accuracy[f"vocoded_{name}"] = share(classifier.predict(clips.vocoded(split)) == labels)
    return accuracy
