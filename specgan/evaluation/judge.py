"""The judge of a data set: a classifier of its sounds that is trained once, kept in its folder, and then classifies."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from specgan.audio import at_rate, resample
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset
from specgan.data.fingerprint import fingerprint
from specgan.data.folder import PARAMS_NAME
from specgan.data.manifest import MANIFEST_NAME, read_file
from specgan.evaluation.clips import MeasuredClips, has_sounds, judged_rate
from specgan.evaluation.few_clips import OF_FEW, has_few_clips, open_settings
from specgan.evaluation.fitting import Fitting, Sounds, fit_classifier
from specgan.evaluation.metrics import Figure, share
from specgan.files import atomic_path, load_tensors
from specgan.models.classifier import Classifier
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgedSounds:
    """Sounds and what the judge makes of them.

    Args:
        waveforms: (N, T), or (N, channels, T) of several channels.
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
        name: by which judges of other data, settings or rates are told from it.
        classifier: on its device.
        reference: (N, n_features), the features of the training clips.
        reference_labels: (N,) int64.
        accuracy: on real clips, by split ("val", "test"), and through the vocoder ("vocoded_val", "vocoded_test").
    """

    name: str
    classifier: Classifier
    reference: Tensor
    reference_labels: Tensor
    accuracy: dict[str, Figure]

    @property
    def sample_rate(self) -> int:
        """At which it listens, Hz."""
        return self.classifier.analysis.params.sample_rate

    def judge(self, waveforms: Tensor, labels: Tensor) -> JudgedSounds:
        """Maps waveforms and labels (N,) to what the judge makes of them."""
        return JudgedSounds(waveforms, labels, *self.classifier.judge(waveforms))

    def classify(self, waveforms: Tensor, sample_rate: int) -> list[tuple[str, float]]:
        """Maps waveforms at any rate in Hz to the name of the likeliest class and its probability."""
        waveforms = resample(waveforms.cpu(), sample_rate, self.sample_rate)
        probabilities, classes = self.classifier.judge(waveforms)[1].softmax(dim=1).max(dim=1)
        names = [self.classifier.class_names[index] for index in classes.tolist()]
        return list(zip(names, probabilities.tolist(), strict=True))


class MakeClassifier(Protocol):
    """Makes an untrained classifier; its settings include `channels`, unless these are 1."""

    def __call__(
        self, *, sample_rate: int, n_samples: int, class_names: Sequence[str], **settings: float
    ) -> Classifier: ...


class MakeVocoder(Protocol):
    """Makes a vocoder: a module that maps spectrograms (B, channels, n_mels, n_frames) and seeds to waveforms."""

    def __call__(self, params: SpectrogramParams, level_range: LevelRange) -> nn.Module: ...


@dataclass(frozen=True)
class JudgeRecipe:
    """How a judge is made; two recipes that differ make two judges.

    Args:
        classifier: makes the classifier, untrained.
        vocoder: makes what turns spectrograms into sound.
        most_clips: examples of a split at most.
        most_vocoded: of these, how many the judge is also trained and tried on through the vocoder.
        n_folds: of the cross-validation of judges of small data sets; it makes no other judge.
        seed: of weights, order and choice.
    """

    classifier: MakeClassifier
    vocoder: MakeVocoder
    most_clips: int
    most_vocoded: int
    n_folds: int
    seed: int

    def clips(self, data: SpectrogramDataModule, device: torch.device) -> MeasuredClips:
        """The clips that the judge learns, and that generators are measured against."""
        vocoder = self.vocoder(data.params, data.level_range)
        return MeasuredClips(data, vocoder, most_clips=self.most_clips, seed=self.seed, device=device)

    def path(self, data: SpectrogramDataModule) -> Path:
        """Where the judge of a data set is kept: its name is a digest of all that the judge depends on."""
        recipe = {name: value for name, value in vars(self).items() if name != "n_folds"}
        contents = [read_file(data.dataset_dir, name) for name in (MANIFEST_NAME, PARAMS_NAME)]
        given = _keywords(self.classifier)
        if isinstance(self.classifier, partial):  # without what an earlier version did not have
            before = {name: value for name, value in given.items() if name not in open_settings(given)}
            recipe["classifier"] = partial(self.classifier.func, *self.classifier.args, **before)
        if has_few_clips(data):
            recipe["few"] = {"settings": open_settings(given), "fitting": OF_FEW}
        digest = fingerprint(
            recipe=recipe,
            # A checkpoint's range, if the data have another one, changes what the vocoder makes of the clips.
            params=(data.params, data.level_range) if data.range_note else data.params,
            crop=data.crop,
            has_sounds=has_sounds(data),
            files=[hashlib.sha256(content).hexdigest() for content in [*contents, *_weights(self.vocoder)]],
        )
        return Path(data.local_dir) / f"judge-{digest}.pt"

    def fitting(self, data: SpectrogramDataModule) -> Fitting:
        """How long classifiers of a data set are trained."""
        return OF_FEW if has_few_clips(data) else Fitting()

    def new_classifier(self, data: SpectrogramDataModule, **settings: float) -> Classifier:
        """An untrained classifier of a data set; the global random state stays as it is."""
        if has_few_clips(data):
            settings = {**open_settings(_keywords(self.classifier)), **settings}
        if data.channels != 1:
            settings["channels"] = data.channels
        with isolate_rng():
            torch.manual_seed(self.seed)
            return self.classifier(
                sample_rate=judged_rate(data),
                n_samples=at_rate(data.params.n_samples, data.params.sample_rate, judged_rate(data)),
                class_names=data.class_names,
                **settings,
            )


def _keywords(make: MakeClassifier | MakeVocoder) -> dict[str, object]:
    return make.keywords if isinstance(make, partial) else {}


def _weights(vocoder: MakeVocoder) -> list[bytes]:
    """The content of the file that a vocoder is read from, if it names one: its path alone does not say which it is."""
    path = _keywords(vocoder).get("path")
    is_there = isinstance(path, str | Path) and Path(path).is_file()
    return [Path(str(path)).read_bytes()] if is_there else []  # what is missing, the vocoder refuses


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
        return Judge(path.stem, classifier, kept["reference"], kept["reference_labels"], kept["accuracy"])
    except Exception as err:
        raise ValueError(f"{path}: not a judge that specgan trained; remove it, and it is trained again") from err


def _train_judge(recipe: JudgeRecipe, data: SpectrogramDataModule, path: Path, device: torch.device) -> None:
    clips = recipe.clips(data, device)
    log.info("training the judge of %s, once for this data set", path.parent)
    train, val, test = (_judged(clips, split, recipe.most_vocoded) for split in (data.whole_train, data.val, data.test))
    classifier = recipe.new_classifier(data)
    held_out = _joined(val) if val else None
    fit_classifier(
        classifier,
        *_joined(train),
        seed=recipe.seed,
        device=device,
        validation=held_out,
        fitting=recipe.fitting(data),
        description="judge",
    )
    accuracy = {
        f"{prefix}{name}": share(classifier.predict(waveforms) == labels)
        for name, kinds in (("val", val), ("test", test))
        for prefix, (waveforms, labels) in kinds.items()
    }
    log.info("judge: %s", ", ".join(f"{name} accuracy {figure['value']:.3f}" for name, figure in accuracy.items()))
    waveforms, labels = next(iter(train.values()))
    kept = {
        "state_dict": classifier.state_dict(),
        "reference": classifier.judge(waveforms)[0],
        "reference_labels": labels,
        "accuracy": accuracy,
    }
    with atomic_path(path) as temporary:
        torch.save(kept, temporary)


def _judged(clips: MeasuredClips, split: SpectrogramDataset, most_vocoded: int) -> dict[str, Sounds]:
    """The clips of a split as recorded, "", if the data set has sounds, and some through the vocoder, "vocoded_"."""
    if not len(split):
        return {}
    if not clips.has_sounds:
        return {"vocoded_": (clips.vocoded(split, description="vocoder"), clips.labels(split))}
    places = clips.places(split)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(clips.seed))
    some = [places[index] for index in order[:most_vocoded].tolist()]
    return {
        "": (clips.waveforms(split, places), clips.labels(split, places)),
        "vocoded_": (clips.vocoded(split, some, description="vocoder"), clips.labels(split, some)),
    }


def _joined(kinds: dict[str, Sounds]) -> Sounds:
    waveforms, labels = zip(*kinds.values(), strict=True)
    return torch.cat(waveforms), torch.cat(labels)
