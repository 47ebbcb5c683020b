"""How good are generated sounds: a judge that knows the data set, metrics against real clips, the report."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from specgan.audio import resample
from specgan.data.manifest import MANIFEST_NAME, read_file
from specgan.evaluation import metrics
from specgan.evaluation.page import Example
from specgan.files import atomic_path, load_tensors
from specgan.models.classifier import Classifier
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise

log = logging.getLogger(__name__)

POOR_ACCURACY = 0.9  # of the judge on real clips, below which its verdicts mean little
FEW_SOUNDS = 100  # in a row, below which its figures are rough
_BATCH_SIZE = 32  # sounds that go through the vocoder together
_COPY_QUANTILE = 0.05  # of the real test clips, which are nearer to a training clip than a near-copy may be

Sampler = Callable[[Sequence[int], Sequence[int]], Tensor]


@dataclass(frozen=True)
class Sounds:
    """Waveforms (N, T), their labels (N,), and what the judge says: features (N, n_features), logits (N, n_classes)."""

    waveforms: Tensor
    labels: Tensor
    features: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def heard_as(self) -> Tensor:
        return self.logits.argmax(dim=1)

    def __getitem__(self, index: Tensor) -> "Sounds":
        return Sounds(self.waveforms[index], self.labels[index], self.features[index], self.logits[index])


class Evaluation:
    """Measures a generator of a data set. Call `prepare` first.

    Args:
        vocoder: called with params and level_range, makes what turns spectrograms into sound.
        judge: called with sample_rate, n_samples and class_names, makes the classifier. It is trained on the training
            split, as recorded and through the vocoder, once for a data set, and kept in the dataset folder.
        features: "judge", or "muq": a second Fréchet distance is measured on the features of MuQ-MuLan.
        muq: called without arguments, makes what has `sample_rate` and `embed(waveforms)`; for `features` "muq".
        n_samples: generated sounds of each class in a report.
        n_shown: sounds of each class and kind on its page.
        n_neighbors: of precision, recall, density and coverage.
        most_clips: examples of a split that are used at most; longer clips give several.
        classifier_steps: batches on which the classifiers of the classification accuracy score are trained; 0: none.
        split: whose real clips the generated ones are compared with, "test" or "val".
        device: of torch; "auto": a GPU if there is one.
        seed: of the generated sounds (sound i of a class has seed + i), the judge and all choices.
    Raises:
        ValueError: a setting that is impossible.
    """

    def __init__(
        self,
        *,
        vocoder: Callable[..., nn.Module],
        judge: Callable[..., Classifier],
        features: str = "judge",
        muq: Callable[[], Any] | None = None,
        n_samples: int = 50,
        n_shown: int = 4,
        n_neighbors: int = 5,
        most_clips: int = 4000,
        classifier_steps: int = 300,
        split: str = "test",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if n_samples <= n_neighbors:
            raise ValueError(f"n_samples is {n_samples}; more than n_neighbors={n_neighbors}, better 50")
        if features not in ("judge", "muq"):
            raise ValueError(f"features is {features!r}; judge or muq")
        if split not in ("test", "val"):
            raise ValueError(f"split is {split!r}; test or val")
        if most_clips < 1:
            raise ValueError(f"most_clips is {most_clips}; at least 1")
        if features == "muq" and muq is None:
            raise ValueError("features is muq, but muq is None; give what makes the embedder")
        self.make_vocoder, self.make_judge = vocoder, judge
        self.make_embedder = muq if features == "muq" else None
        self.n_samples, self.n_shown, self.n_neighbors = n_samples, n_shown, n_neighbors
        self.most_clips, self.classifier_steps, self.split, self.seed = most_clips, classifier_steps, split, seed
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(automatic if device == "auto" else device)
        self.judge: Classifier | None = None

    def prepare(self, datamodule: L.LightningDataModule, *, again: bool = False) -> None:
        """Loads the judge of a data set, or trains it where there is none (or `again`).

        Args:
            datamodule: set up; with train, val, test (SpectrogramDataset), params, level_range, class_names, crop,
                dataset_dir and local_dir.
        Raises:
            FileNotFoundError, AudioError: recordings that the data set was made from are gone or broken.
            ValueError: what is kept as the judge is no judge.
        """
        data = self.data = datamodule
        self.params: SpectrogramParams = data.params
        self.vocoder = self.make_vocoder(data.params, data.level_range).to(self.device)
        self.judge = self._new_judge()
        path = Path(data.local_dir) / f"judge-{self._fingerprint()}.pt"
        if again or not path.is_file():
            self._train_judge(path)
        try:
            kept = load_tensors(path)
            self.judge.load_state_dict(kept["state_dict"])
            self.reference, self.reference_labels = kept["reference"], kept["reference_labels"]
            self.accuracy: dict[str, dict[str, float]] = kept["accuracy"]
        except Exception as err:
            raise ValueError(f"{path}: not a judge that specgan trained; remove it, and it is made again") from err
        self.judge.to(self.device).eval()

    def _fingerprint(self) -> str:
        files = [read_file(self.data.dataset_dir, name) for name in (MANIFEST_NAME, "params.yaml")]
        settings = (self.make_judge, self.make_vocoder, self.params, self.data.crop, self.most_clips, self.seed)
        return hashlib.sha256(b"".join(files) + repr(settings).encode()).hexdigest()[:8]

    def _new_judge(self, **settings: Any) -> Classifier:
        with isolate_rng():  # measuring must not change the training of the generator
            torch.manual_seed(self.seed)
            return self.make_judge(
                sample_rate=self.params.sample_rate,
                n_samples=self.params.n_samples,
                class_names=self.data.class_names,
                **settings,
            )

    def _train_judge(self, path: Path) -> None:
        real, labels = self._recorded(self.data.train)
        log.info("training the judge of %s: once for this data set, a minute or two", path.parent)
        vocoded = self._vocode(self._spectrograms(self.data.train), count(), "training clips through the vocoder")
        self._fit(self.judge, torch.cat([real, vocoded]), labels.repeat(2), self.judge.n_steps)
        accuracy = {}
        for split in ("val", "test"):
            clips = getattr(self.data, split)
            if len(clips):
                real_clips, vocoded_clips = self._real(clips)
                accuracy[split] = _share(real_clips.heard_as == real_clips.labels)
                accuracy[f"vocoded_{split}"] = _share(vocoded_clips.heard_as == vocoded_clips.labels)
        log.info("judge: %s", ", ".join(f"{name} accuracy {value['value']:.3f}" for name, value in accuracy.items()))
        kept = {
            "state_dict": self.judge.state_dict(),
            "reference": self._judged(real, labels).features,
            "reference_labels": labels,
            "accuracy": accuracy,
        }
        with atomic_path(path) as temporary:
            torch.save(kept, temporary)

    def _fit(self, classifier: Classifier, waveforms: Tensor, labels: Tensor, n_steps: int) -> None:
        with isolate_rng():
            torch.manual_seed(self.seed)
            loader = DataLoader(TensorDataset(waveforms, labels), min(64, len(labels)), shuffle=True, drop_last=True)
            trainer = L.Trainer(
                max_steps=n_steps,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(classifier, loader)
        classifier.to(self.device).eval()

    # --- real and generated sounds

    def _places(self, clips: Any) -> list[tuple[int, float]]:
        """Clips and where they are cut, as training cuts them: longer clips several times."""
        generator = torch.Generator().manual_seed(self.seed)
        places = []
        for index, n_frames in enumerate(clips.n_frames_of.tolist()):
            n_pieces = 1 if self.data.crop == "start" else max(1, math.ceil(n_frames / self.params.n_frames))
            positions = torch.rand(n_pieces, generator=generator)
            places += [(index, position) for position in positions.tolist()]
        if len(places) > self.most_clips:
            chosen = torch.randperm(len(places), generator=generator)[: self.most_clips].sort().values
            places = [places[index] for index in chosen.tolist()]
        return places if self.data.crop == "random" else [(index, 0.0) for index, _ in places]

    def _recorded(self, clips: Any) -> tuple[Tensor, Tensor]:
        places = self._places(clips)
        waveforms = clips.waveforms(places)
        return waveforms, clips.labels[[index for index, _ in places]]

    def _spectrograms(self, clips: Any) -> Tensor:
        return clips.__getitems__(self._places(clips))[0]  # all at once

    def _real(self, clips: Any) -> tuple[Sounds, Sounds]:
        """The clips as recorded, and the same through the vocoder."""
        waveforms, labels = self._recorded(clips)
        vocoded = self._vocode(self._spectrograms(clips), count())
        return self._judged(waveforms, labels), self._judged(vocoded, labels)

    @torch.no_grad()
    def _vocode(self, spectrograms: Tensor, seeds: Iterable[int], description: str | None = None) -> Tensor:
        batches = spectrograms.split(_BATCH_SIZE)
        if description:
            batches = track(batches, description=description, transient=True)
        seeds = iter(seeds)
        return torch.cat(
            [self.vocoder(some.to(self.device), seeds=list(islice(seeds, len(some)))).cpu() for some in batches]
        )

    def _judged(self, waveforms: Tensor, labels: Tensor) -> Sounds:
        return Sounds(waveforms, labels, *self.judge.judge(waveforms))

    def _generated(self, sample: Sampler, labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Sounds]:
        spectrograms = sample(labels.tolist(), seeds)
        return spectrograms, self._judged(self._vocode(spectrograms, seeds), labels)

    # --- figures

    @torch.no_grad()
    def quick(self, sample: Sampler, *, n_samples: int) -> dict[str, Any]:
        """Measures a generator while it trains.

        Args:
            sample: maps class indices and seeds to spectrograms (B, 1, n_mels, n_frames).
            n_samples: sounds of a class on average; each class has its share of the training clips.
        Returns:
            fad (Fréchet distance to the training clips on the judge's features), conditional_accuracy, and confusion
            (how many sounds of each class were heard as which, a list of rows).
        """
        counts = self._quick_counts(n_samples)
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        seeds = torch.cat([torch.arange(count) for count in counts.tolist()]) + self.seed
        _, sounds = self._generated(sample, labels, seeds.tolist())
        return {
            "fad": metrics.frechet_distance(sounds.features, self.reference),
            "conditional_accuracy": float((sounds.heard_as == labels).float().mean()),
            "confusion": _confusion(sounds, len(counts)),
        }

    def quick_real(self, *, n_samples: int) -> tuple[float, int] | None:
        """Measures real clips as `quick` does generated ones: from the validation split, and then from the test split.

        Args:
            n_samples: as of `quick`.
        Returns:
            fad, and of how many clips: as many as `quick` draws, or all there are. None: fewer than 2.
        Raises:
            FileNotFoundError, AudioError: their recordings are gone or broken.
        """
        missing, waveforms = self._quick_counts(n_samples), []
        for clips in (self.data.val, self.data.test):
            places = self._places(clips)
            labels = clips.labels[[index for index, _ in places]]
            chosen = self._balanced(labels, missing)
            if len(chosen):
                waveforms.append(clips.waveforms([places[i] for i in chosen.tolist()]))
                missing = missing - torch.bincount(labels[chosen], minlength=len(missing))
        n = sum(len(some) for some in waveforms)
        if n < 2:
            return None
        features, _ = self.judge.judge(torch.cat(waveforms))
        return metrics.frechet_distance(features, self.reference), n

    def _quick_counts(self, n_samples: int) -> Tensor:
        """How many sounds of each class: `n_samples` on average, at least one, each its share of the training clips."""
        counts = torch.bincount(self.reference_labels, minlength=len(self.data.class_names)).double()
        return (counts / counts.sum() * n_samples * len(counts)).round().long().clamp_min(1)

    def hears(self, waveforms: Tensor) -> list[tuple[str, float]]:
        """What the judge hears in waveforms (N, T): the name of a class, and its probability."""
        probability, heard_as = self.judge.judge(waveforms)[1].softmax(dim=1).max(dim=1)
        names = [self.data.class_names[index] for index in heard_as.tolist()]
        return list(zip(names, probability.tolist(), strict=True))

    def report(self, sample: Sampler) -> tuple[dict[str, Any], dict[str, dict[str, list[Example]]]]:
        """Measures a generator in full.

        Args:
            sample: maps class indices and seeds to spectrograms (B, 1, n_mels, n_frames).
        Returns:
            What `specgan.evaluation.page.write_report` takes: the figures and the sounds to show.
        Raises:
            ValueError: the split to compare with is empty.
        """
        clips = getattr(self.data, self.split)
        if not len(clips):
            raise ValueError(
                f"the {self.split} split of {self.data.dataset_dir} is empty: nothing to compare with; make one "
                "(splits=[80,10,10]), or evaluation.split=val"
            )
        names = self.data.class_names
        labels = torch.arange(len(names)).repeat_interleave(self.n_samples)
        seeds = [self.seed + i for _ in names for i in range(self.n_samples)]
        spectrograms, generated = self._generated(sample, labels, seeds)
        real, vocoded = self._real(clips)
        train_waveforms, train_labels = self._recorded(self.data.train)
        train = self._judged(train_waveforms, train_labels)
        rows = {"real": real, "vocoded": vocoded, "generated": generated}

        figures: dict[str, dict[str, Any]] = {name: self._shares(sounds) for name, sounds in rows.items()}
        for name, distances in self._distances(rows, train).items():
            figures[name] |= distances
        copies, originals = self._copies(spectrograms, clips)
        for name, share in copies.items():
            figures[name]["near_copy_share"] = share
        if self.classifier_steps:
            for name, score in self._classification_scores(generated, real, train).items():
                figures[name]["classification_accuracy_score"] = score
        if self.make_embedder is not None:
            for name, distance in self._embedded(rows, train).items():
                figures[name]["muq_frechet_distance"] = distance

        trusted = self.accuracy[self.split]["value"] >= POOR_ACCURACY
        report = {
            "dataset": str(self.data.dataset_dir),
            "seed": self.seed,
            "split": self.split,
            "class_names": list(names),
            "judge": {**{f"{name}_accuracy": value for name, value in self.accuracy.items()}, "trusted": trusted},
            "rows": figures,
            "per_class": {
                name: {
                    label: _share(sounds.heard_as[sounds.labels == i] == i)
                    for i, label in enumerate(names)
                    if (sounds.labels == i).any()
                }
                for name, sounds in rows.items()
            },
            "confusion": {name: _confusion(sounds, len(names)) for name, sounds in rows.items()},
            "warnings": self._warnings(figures),
        }
        return report, self._examples(rows, spectrograms, seeds, train, originals)

    def _shares(self, sounds: Sounds) -> dict[str, dict[str, float]]:
        return {
            "conditional_accuracy": _share(sounds.heard_as == sounds.labels),
            "silent_share": _share(metrics.silent(sounds.waveforms)),
            "clipped_share": _share(metrics.clipped(sounds.waveforms)),
        }

    def _distances(self, rows: Mapping[str, Sounds], train: Sounds) -> dict[str, dict[str, Any]]:
        """Figures that depend on how many sounds there are: all rows are cut to the same number of each class."""
        n_classes = len(self.data.class_names)
        counts = self._counts(rows, train)
        if metrics.n_kept(int(counts.sum())) <= self.n_neighbors:
            return {}
        small = train[self._balanced(train.labels, counts)]
        in_train = torch.bincount(train.labels, minlength=n_classes)
        times = int((in_train[counts > 0] // counts[counts > 0]).amin())
        large = train[self._balanced(train.labels, counts * times)]
        real = rows["real"][self._balanced(rows["real"].labels, counts)]
        real_diversity = metrics.diversity(real.features, real.labels)

        figures: dict[str, dict[str, Any]] = {}
        for name, sounds in rows.items():
            sounds = sounds[self._balanced(sounds.labels, counts)]

            def of(index: Tensor, sounds: Sounds = sounds) -> list[float]:
                some = sounds[index]
                return [
                    metrics.frechet_distance(some.features, large.features),
                    metrics.kernel_distance(some.features, large.features, seed=self.seed),
                    metrics.inception_score(some.logits),
                    *metrics.precision_recall_density_coverage(
                        some.features, small.features, n_neighbors=self.n_neighbors
                    ),
                    metrics.diversity(some.features, some.labels) / real_diversity,
                ]

            values = of(torch.arange(len(sounds)))
            intervals = metrics.subset_interval(of, values, len(sounds), seed=self.seed)
            figures[name] = {}
            for (metric, (least, most)), value, interval in zip(_DISTANCES.items(), values, intervals, strict=True):
                low, high = (min(max(bound, least), most) for bound in interval)
                if math.isfinite(value + low + high):  # a class with one sound has no diversity
                    figures[name][metric] = _figure(value, low, high, len(sounds))
        return figures

    def _counts(self, rows: Mapping[str, Sounds], train: Sounds) -> Tensor:
        """How many sounds of each class every row and the training split have."""
        n_classes = len(self.data.class_names)
        counts = [torch.bincount(sounds.labels, minlength=n_classes) for sounds in (*rows.values(), train)]
        return torch.stack(counts).amin(dim=0)

    def _balanced(self, labels: Tensor, counts: Tensor) -> Tensor:
        """Indices of so many sounds of each class, chosen by the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(labels), generator=generator)
        chosen = [order[labels[order] == label][:count] for label, count in enumerate(counts.tolist())]
        return torch.cat(chosen).sort().values

    def _copies(self, spectrograms: Tensor, clips: Any) -> tuple[dict[str, Any], Tensor]:
        """The share of spectrograms that are nearer to a training clip than nearly all real ones are.

        Not of sounds: what the vocoder changes would hide copies. Also the index of the training clip that is nearest
        to each generated spectrogram.
        """

        def contours(spectrograms: Tensor) -> Tensor:
            return nn.functional.adaptive_avg_pool2d(spectrograms, 32).flatten(1)

        reference = contours(self._spectrograms(self.data.train))
        real, _ = metrics.nearest(contours(self._spectrograms(clips)), reference)
        generated, originals = metrics.nearest(contours(spectrograms), reference)
        limit = torch.quantile(real, _COPY_QUANTILE)
        return {"real": _share(real < limit), "generated": _share(generated < limit)}, originals

    def _classification_scores(self, generated: Sounds, real: Sounds, train: Sounds) -> dict[str, Any]:
        """The accuracy on real clips of a classifier that was trained on generated ones, and on as many real ones.

        Source: Ravuri, Vinyals, "Classification accuracy score for conditional generative models", 2019.
        """
        n_classes = len(self.data.class_names)
        counts = torch.bincount(train.labels, minlength=n_classes).clamp_max(self.n_samples)
        scores = {}
        for name, sounds in (("real", train), ("generated", generated)):
            chosen = sounds[self._balanced(sounds.labels, counts)]
            classifier = self._new_judge(n_steps=self.classifier_steps)
            self._fit(classifier, chosen.waveforms, chosen.labels, self.classifier_steps)
            scores[name] = _share(classifier.judge(real.waveforms)[1].argmax(dim=1) == real.labels)
        return scores

    def _embedded(self, rows: Mapping[str, Sounds], train: Sounds) -> dict[str, Any]:
        embedder = self.make_embedder()

        def embed(waveforms: Tensor) -> Tensor:
            to_rate = partial(resample, from_rate=self.params.sample_rate, to_rate=embedder.sample_rate)
            sounds = track(waveforms.split(_BATCH_SIZE), description="MuQ", transient=True)
            return torch.cat([embedder.embed([to_rate(w.unsqueeze(0))[0] for w in some]) for some in sounds])

        counts = self._counts(rows, train)
        reference = embed(train.waveforms)
        figures = {}
        for name, sounds in rows.items():
            features = embed(sounds.waveforms[self._balanced(sounds.labels, counts)])
            value = metrics.frechet_distance(features, reference)

            def of(index: Tensor, features: Tensor = features) -> list[float]:
                return [metrics.frechet_distance(features[index], reference)]

            (interval,) = metrics.subset_interval(
                of,
                [value],
                len(features),
                seed=self.seed,
            )
            figures[name] = _figure(value, *interval, len(features))
        return figures

    def _warnings(self, figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
        warnings = []
        n = figures["real"].get("frechet_distance", {"n": 0})["n"]
        if n == 0:
            warnings.append(f"There are too few real {self.split} clips to measure distances from.")
        elif n < FEW_SOUNDS:
            warnings.append(
                f"Distances are measured on {n} sounds, because there are no more real {self.split} clips: they are "
                "rough; compare them with those of the real clips, not with other data sets."
            )
        generated = figures["generated"]
        if generated["silent_share"]["value"] > 0.1:
            warnings.append("More than a tenth of the generated sounds are silent.")
        if generated["clipped_share"]["value"] > 0.1:
            warnings.append("More than a tenth of the generated sounds exceed full scale; files are scaled down.")
        if generated.get("diversity", {"value": 1})["value"] < 0.5:
            warnings.append("Generated sounds of a class differ less than half as much as real ones: it collapses.")
        if generated["near_copy_share"]["low"] > figures["real"]["near_copy_share"]["high"]:
            warnings.append("Many generated sounds are nearly copies of training clips; listen to the nearest ones.")
        return warnings

    def _examples(
        self,
        rows: Mapping[str, Sounds],
        spectrograms: Tensor,
        seeds: Sequence[int],
        train: Sounds,
        originals: Tensor,
    ) -> dict[str, dict[str, list[Example]]]:
        transform, level_range = Spectrogram(self.params), self.data.level_range
        names = self.data.class_names

        def picture(waveform: Tensor) -> Tensor:
            return _picture(waveform, transform, self.params, level_range)

        def verdict(sounds: Sounds, index: int) -> str:
            heard = int(sounds.heard_as[index])
            return "" if heard == sounds.labels[index] else f", heard as {names[heard]}"

        examples = {}
        for label, name in enumerate(names):
            real = (rows["real"].labels == label).nonzero()[: self.n_shown, 0].tolist()
            drawn = (rows["generated"].labels == label).nonzero()[: self.n_shown, 0].tolist()
            shown: dict[str, list[Example]] = {}
            for kind in ("real", "vocoded"):
                shown[kind] = [
                    Example(
                        f"{self.split} clip {i}{verdict(rows[kind], i)}",
                        rows[kind].waveforms[i],
                        picture(rows[kind].waveforms[i]),
                    )
                    for i in real
                ]
            shown["generated"] = []
            for i in drawn:
                origin = int(originals[i])
                of = names[int(train.labels[origin])]
                copied = Example(of, train.waveforms[origin], picture(train.waveforms[origin]))
                caption = f"seed {seeds[i]}{verdict(rows['generated'], i)}"
                shown["generated"].append(
                    Example(caption, rows["generated"].waveforms[i], spectrograms[i, 0], nearest=copied)
                )
            examples[name] = shown
        return examples


# What depends on how many sounds there are, and the least and the most it can be.
_DISTANCES = {
    "frechet_distance": (0, math.inf),
    "kernel_distance": (-math.inf, math.inf),
    "inception_score": (1, math.inf),
    "precision": (0, 1),
    "recall": (0, 1),
    "density": (0, math.inf),
    "coverage": (0, 1),
    "diversity": (0, math.inf),
}


def _figure(value: float, low: float, high: float, n: int) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


def _share(hits: Tensor) -> dict[str, float]:
    n, n_hits = len(hits), int(hits.sum())
    return _figure(n_hits / n, *metrics.share_interval(n_hits, n), n)


def _confusion(sounds: Sounds, n_classes: int) -> list[list[int]]:
    pairs = sounds.labels * n_classes + sounds.heard_as
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes).tolist()


def _picture(waveform: Tensor, transform: Spectrogram, params: SpectrogramParams, level_range: LevelRange) -> Tensor:
    return normalise(transform(waveform.unsqueeze(0)), params, level_range)[0]
