"""A dataset folder as a torch Dataset."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from specgan.audio import load_audio, scale_to_peak
from specgan.manifest import read_manifest
from specgan.spectrogram import LevelRange, SpectrogramParams, normalise


class SpectrogramDataset(Dataset):
    """The clips of one split, all of one length, held in memory.

    Args:
        folder: a dataset folder that task=spectrograms made.
        split: "train", "val" or "test".
        params: of the spectrograms; `n_frames` is the length of an example. Shorter clips are followed by silence, of
            longer ones a piece is cut.
    Raises:
        FileNotFoundError: no finished dataset folder.
        ValueError: the folder was made with other spectrogram settings, or for other ends (pictures alone, several
            channels, pooled), or `n_frames` is None.
    """

    def __init__(self, folder: str | Path, split: str, params: SpectrogramParams) -> None:
        self.folder, self.params = Path(folder), params
        info = read_info(folder)
        require_same_params(params, info, folder)
        _require_trainable(info, params, folder)
        if params.n_frames is None:
            raise ValueError("n_frames is None: examples need one length; choose a spectrogram preset that has one")
        self.class_names: list[str] = info["class_names"]
        self.level_range = LevelRange(**info["level_range"])
        table = read_manifest(folder)
        table = table[table["split"] == split]
        index = {name: i for i, name in enumerate(self.class_names)}
        self.peak: float | None = info["peak"]
        self.sources = table["source"].tolist()
        whole = info["spectrogram"].get("n_frames") is None
        self.starts_s = table["start_s"].tolist() if "start_s" in table else [0.0 if whole else None] * len(table)
        self.labels = [index[label] for label in table["label"]]
        self.levels = [torch.load(self.folder / path, weights_only=True) for path in table["path"]]

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, item: int | tuple[int, float]) -> tuple[Tensor, int]:
        """Returns a spectrogram (1, n_mels, n_frames) in [-1, 1] and its label.

        Args:
            item: the index; or the index and where to cut a longer clip, from 0 (its start) to 1 (its end).
        """
        index, position = item if isinstance(item, tuple) else (item, 0.0)
        level, n_frames = self.levels[index], self.params.n_frames
        surplus = level.shape[1] - n_frames
        if surplus > 0:
            start = round(position * surplus)
            level = level[:, start : start + n_frames]
        elif surplus < 0:
            level = F.pad(level, (0, -surplus), value=self.params.silence)
        return normalise(level, self.params, self.level_range).unsqueeze(0), self.labels[index]

    def waveform(self, index: int) -> Tensor:
        """Loads the recorded sound (1, n_frames * hop_length) that example `index`, cut at its start, shows.

        Raises:
            FileNotFoundError: the recording is no longer where the dataset was made from, or the manifest does not say
                where in it the slice was.
        """
        return self.waveforms([(index, 0.0)])

    def waveforms(self, places: Sequence[tuple[int, float]]) -> Tensor:
        """Loads the recorded sounds (N, n_frames * hop_length) that the examples at `places` (as in []) show.

        Raises:
            FileNotFoundError: as `waveform`.
        """
        n_samples, cut, recording, loaded = self.params.n_samples, [], torch.empty(0), None
        for index, position in places:
            if index != loaded:  # neighbouring places are often of one clip
                recording, loaded = self._recording(index), index
            surplus = max(0, self.levels[index].shape[1] - self.params.n_frames)
            start = round(position * surplus) * self.params.hop_length
            piece = recording[start : start + n_samples]
            cut.append(F.pad(piece, (0, n_samples - len(piece))))
        return torch.stack(cut)

    def _recording(self, index: int) -> Tensor:
        if self.starts_s[index] is None:
            raise FileNotFoundError(f"{self.folder}: its manifest has no start_s, which tells where the slices were")
        waveform, _ = load_audio(self.sources[index], sample_rate=self.params.sample_rate)
        if self.peak is not None:
            waveform = scale_to_peak(waveform, self.peak)
        return waveform[0, round(self.starts_s[index] * self.params.sample_rate) :]


def read_info(folder: str | Path) -> dict:
    """Reads `<folder>/params.yaml`: spectrogram, peak, level_range, class_names."""
    path = Path(folder) / "params.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, so {folder} is no dataset folder; make one with preprocess.py")
    info = yaml.safe_load(path.read_text())
    if "level_range" not in info:
        raise ValueError(f"{path}: the folder was not finished; run the same preprocess.py command again")
    return info


def require_same_params(params: SpectrogramParams, info: dict, folder: str | Path) -> None:
    """Raises ValueError, with both values, when a dataset folder was made with other settings."""
    differing = [
        f"{name}: the folder has {value!r}, asked for is {getattr(params, name)!r}"
        for name, value in info["spectrogram"].items()
        if name != "n_frames" and getattr(params, name) != value  # shorter examples can be cut from longer slices
    ]
    if differing:
        raise ValueError(f"{folder}: made with other spectrogram settings; {'; '.join(differing)}")


def _require_trainable(info: dict, params: SpectrogramParams, folder: str | Path) -> None:
    """Raises ValueError when a dataset folder holds no spectrograms that can be learned and turned back into sound."""
    n_frames = info["spectrogram"].get("n_frames")
    if n_frames is not None and params.n_frames is not None and params.n_frames > n_frames:
        raise ValueError(
            f"{folder}: its recordings are cut into slices of n_frames {n_frames}, asked for is {params.n_frames}; "
            "make it with spectrogram.n_frames=null, which keeps them whole"
        )
    fit = {"format": ("pt", "both"), "mono": (True,), "time_pool": (1,), "freq_pool": (1,)}
    for name, values in fit.items():
        value = info.get(name, values[0])
        if value not in values:
            wanted = " or ".join(str(known).lower() for known in values)
            raise ValueError(
                f"{folder}: made with task.{name}={str(value).lower()}; training needs task.{name}={wanted}"
            )
