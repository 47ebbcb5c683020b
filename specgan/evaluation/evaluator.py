"""How good are generated sounds: quick figures while a generator trains, and the report of a finished one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specgan.data.datamodule import SpectrogramDataModule
from specgan.evaluation.clips import MeasuredClips, judged_rate
from specgan.evaluation.cross_validation import CrossValidation, cross_validated, is_too_small
from specgan.evaluation.distances import balanced
from specgan.evaluation.judge import Judge, JudgeRecipe, MakeClassifier, MakeVocoder, load_judge, load_or_train_judge
from specgan.evaluation.listening import Sounds, choose_sounds
from specgan.evaluation.metrics import frechet_distance
from specgan.evaluation.report import Embedder, Examples, Report, ReportSettings, Sampler, confusion, make_report


class Evaluation:
    """How generators are measured; `of` a data set gives what measures them.

    Args:
        vocoder: called with params and level_range, makes what turns spectrograms into sound.
        judge: called with sample_rate, n_samples and class_names, makes the classifier. It is trained on the training
            split, as recorded (if the data set keeps sounds) and some of it through the vocoder, once for a data set,
            and kept in the dataset folder.
        features: "judge", or "muq": a second Fréchet distance is measured on the features of MuQ-MuLan.
        muq: called without arguments, makes an `Embedder`; for `features` "muq".
        n_samples: generated sounds of each class in a report.
        n_shown: sounds of each class and row on its page.
        n_neighbors: of precision, recall, density and coverage.
        most_clips: examples of a split that are used at most; longer clips give several.
        most_vocoded: examples of a split that the judge also gets through the vocoder, at most.
        n_folds: of the cross-validation by which the judge's accuracy is known where the test split of a small data set
            cannot tell it; 0: there is none.
        classifier_steps: batches on which the classifiers of the classification accuracy score are trained; 0: it is
            left out.
        split: whose real clips the generated ones are compared with, "test" or "val".
        listening: also write a page on which people rate sounds blindly, `n_shown` of each class and row.
        device: of torch; "auto": a GPU if there is one.
        seed: of the generated sounds (sound i of a class has seed + i), the judge and all choices.
    Raises:
        ValueError: a setting that is impossible.
    """

    def __init__(
        self,
        *,
        vocoder: MakeVocoder,
        judge: MakeClassifier,
        features: str = "judge",
        muq: Callable[[], Embedder] | None = None,
        n_samples: int = 50,
        n_shown: int = 4,
        n_neighbors: int = 5,
        most_clips: int = 4000,
        most_vocoded: int = 100,
        n_folds: int = 4,
        classifier_steps: int = 300,
        split: str = "test",
        listening: bool = False,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if features not in ("judge", "muq"):
            raise ValueError(f"features is {features!r}; judge or muq")
        if most_clips < 1:
            raise ValueError(f"most_clips is {most_clips}; at least 1")
        if most_vocoded < 1:
            raise ValueError(f"most_vocoded is {most_vocoded}; at least 1")
        if n_folds < 0 or n_folds == 1:
            raise ValueError(f"n_folds is {n_folds}; at least 2, better 4, or 0 for no cross-validation")
        if features == "muq" and muq is None:
            raise ValueError("features is muq, but muq is None; give what makes the embedder")
        self.recipe = JudgeRecipe(
            judge, vocoder, most_clips=most_clips, most_vocoded=most_vocoded, n_folds=n_folds, seed=seed
        )
        self.report_settings = ReportSettings(
            n_samples=n_samples,
            n_shown=n_shown,
            n_neighbors=n_neighbors,
            classifier_steps=classifier_steps,
            split=split,
            listening=listening,
            make_embedder=muq if features == "muq" else None,
        )
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(automatic if device == "auto" else device)

    def of(self, data: SpectrogramDataModule, *, retrain: bool = False) -> "Evaluator":
        """Loads the judge of a data set that is set up, or trains it where there is none yet, or if `retrain`.

        Raises:
            ValueError: the file that should be the judge is none.
        """
        judge = load_or_train_judge(self.recipe, data, device=self.device, retrain=retrain)
        return Evaluator(judge, self.recipe.clips(data, self.device), self.recipe, self.report_settings)

    def is_by(self, data: SpectrogramDataModule, name: str | None) -> bool:
        """Whether figures that a judge of this name measured compare with those of the judge of a data set.

        None: a version measured them that did not write the name down. It judged at the spectrograms' rate.
        """
        return judged_rate(data) == data.params.sample_rate if name is None else name == self.judge_name(data)

    def judge_name(self, data: SpectrogramDataModule) -> str:
        """The name of the judge of a data set that is set up, whether it has been trained or not."""
        return self.recipe.path(data).stem

    def find_judge(self, data: SpectrogramDataModule) -> Judge | None:
        """Loads the judge of a data set that is set up; None: it has not been trained.

        Raises:
            ValueError: as `of`.
        """
        return load_judge(self.recipe, data, device=self.device)


@dataclass(frozen=True)
class QuickFigures:
    """What is measured while a generator trains.

    Args:
        frechet_distance: to the training clips, on the judge's features.
        conditional_accuracy: the share of sounds that the judge takes for the class that was asked for.
        confusion: how many sounds of each class (row) the judge takes for which (column).
    """

    frechet_distance: float
    conditional_accuracy: float
    confusion: list[list[int]]


@dataclass(frozen=True)
class Evaluator:
    """Measures generators of one data set.

    Args:
        judge: of the data set.
        clips: of the data set.
        recipe: of the judge.
        settings: of reports.
    """

    judge: Judge
    clips: MeasuredClips
    recipe: JudgeRecipe
    settings: ReportSettings

    @torch.no_grad()
    def quick(self, sample: Sampler, *, n_samples: int) -> QuickFigures:
        """Measures a generator while it trains.

        Args:
            sample: maps class indices and seeds to spectrograms (B, channels, n_mels, n_frames).
            n_samples: sounds of a class on average; each class has its share of the training clips.
        """
        counts = self._counts(n_samples)
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        seeds = torch.cat([torch.arange(count) for count in counts.tolist()]) + self.recipe.seed
        waveforms = self.clips.vocode(sample(labels.tolist(), seeds.tolist()), seeds.tolist())
        sounds = self.judge.judge(waveforms, labels)
        return QuickFigures(
            frechet_distance(sounds.features, self.judge.reference),
            float(sounds.is_right.float().mean()),
            confusion(sounds, len(counts)),
        )

    def quick_real(self, *, n_samples: int) -> tuple[float, int] | None:
        """Measures real clips as `quick` does generated ones: from the validation split, and then from the test split.

        Args:
            n_samples: as in `quick`.
        Returns:
            Their Fréchet distance to the training clips and how many they are: as many as `quick` draws, or all of
            both splits. None: fewer than 2.
        """
        missing, waveforms = self._counts(n_samples), []
        for clips in (self.clips.data.val, self.clips.data.test):
            places = self.clips.places(clips)
            labels = clips.labels[[index for index, _ in places]]
            chosen = balanced(labels, missing, seed=self.recipe.seed)
            if len(chosen):
                waveforms.append(self.clips.waveforms(clips, [places[i] for i in chosen.tolist()]))
                missing = missing - torch.bincount(labels[chosen], minlength=len(missing))
        n = sum(map(len, waveforms))
        if n < 2:
            return None
        features, _ = self.judge.classifier.judge(torch.cat(waveforms))
        return frechet_distance(features, self.judge.reference), n

    def cross_validation(self, split: str = "test") -> CrossValidation | None:
        """The judge's accuracy by cross-validation; None: the split is large enough to tell it, or `n_folds` is 0."""
        clips = self.clips.data.test if split == "test" else self.clips.data.val
        return cross_validated(self.recipe, self.clips) if is_too_small(self.clips, clips) else None

    def _counts(self, n_samples: int) -> Tensor:
        """Sounds of each class: `n_samples` on average, at least one, each its share of the training clips."""
        counts = torch.bincount(self.judge.reference_labels, minlength=len(self.clips.data.class_names)).double()
        return (counts / counts.sum() * n_samples * len(counts)).round().long().clamp_min(1)

    def sounds_to_rate(self, sample: Sampler) -> Sounds:
        """Chooses sounds for `specgan.evaluation.listening.write_listening`."""
        settings = self.settings
        return choose_sounds(sample, self.clips, split=settings.split, n_each=settings.n_shown, seed=self.recipe.seed)

    def report(self, sample: Sampler) -> tuple[Report, Examples]:
        """Measures a generator in full, see `make_report`."""
        folds = self.cross_validation(self.settings.split)
        return make_report(sample, self.judge, self.clips, self.recipe, self.settings, folds=folds)
