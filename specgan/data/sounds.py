"""The sound of recordings, kept in the dataset folder, so that measuring does not depend on the recordings.

`<dataset>/sounds/<16 hex digits>.flac` holds a recording as its spectrograms show it: one channel, at their sample
rate. It is scaled to full scale, and its comment says which level that stands for. The manifest's column `sound` names
the file of each clip; it is empty for clips whose sound is not kept.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from specgan.audio import AudioError, note_results, open_audio, read_flac, write_flac
from specgan.data.fingerprint import fingerprint
from specgan.data.manifest import is_url, read_file
from specgan.files import remove_files

SOUNDS_NAME = "sounds"  # the folder in a dataset folder

_PATH = re.compile(rf"{SOUNDS_NAME}/[0-9a-f]{{16}}\.flac")


def keep_sounds(
    table: pd.DataFrame,
    folder: str | Path,
    *,
    n_of_split: int,
    sample_rate: int,
    downmix: str,
    peak: float | None,
    seed: int,
) -> pd.DataFrame:
    """Keeps the sound of some recordings of each split; writes what is missing and removes what is stale.

    A file is named by a digest of its recording's state and of the settings, so it never replaces another.

    Args:
        table: the manifest: recording, label, split and source of each clip.
        folder: of the dataset.
        n_of_split: recordings of each split at most, chosen by the seed, each label by its share; 0: none.
        sample_rate: Hz.
        downmix: how several channels become one, see `open_audio`.
        peak: to which the recordings are scaled; None: they keep their level.
        seed: another chooses other recordings.
    Returns:
        The table with the column `sound`.
    Raises:
        OSError, AudioError: a recording cannot be read, or a sound cannot be written.
    """
    kept = {}
    chosen = _chosen(table, n_of_split, seed)
    for recording, source in track(chosen.items(), "keeping sounds", len(chosen), transient=True, disable=not chosen):
        status = Path(source).stat()
        state = (str(source), status.st_size, status.st_mtime_ns)
        digest = fingerprint(n_digits=16, source=state, sample_rate=sample_rate, downmix=downmix, peak=peak)
        path = f"{SOUNDS_NAME}/{digest}.flac"
        if not Path(folder, path).exists():
            note_results(folder, [path])
            _write(Path(folder, path), source, sample_rate=sample_rate, downmix=downmix, peak=peak)
        kept[recording] = path
    own = (f"{SOUNDS_NAME}/{file.name}" for file in Path(folder, SOUNDS_NAME).glob("*.flac"))
    stale = set(filter(is_sound_path, own)) - set(kept.values())
    remove_files([*stale, f"{SOUNDS_NAME}/.partial"], folder)  # the last: so that half-written files are looked for
    return table.assign(sound=table["recording"].map(kept).fillna("")) if kept else table


def is_sound_path(path: str) -> bool:
    """Whether a path in a dataset folder is one that `keep_sounds` gives."""
    return _PATH.fullmatch(path) is not None


def _chosen(table: pd.DataFrame, n_of_split: int, seed: int) -> dict[str, str]:
    """The source of each recording to keep. Those of a growing folder stay chosen, so the order is by a hash."""
    recordings = table[["recording", "label", "split", "source"]].drop_duplicates("recording")
    names = recordings["recording"]
    digests = [hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).hexdigest() for name in names]
    recordings = recordings.assign(digest=digests).sort_values("digest")
    of_label = recordings.groupby(["split", "label"])["recording"]
    # From 0 up in equal steps for each label: the first so many are of all labels, each by its share.
    recordings["place"] = of_label.cumcount() / of_label.transform("size")
    first = recordings.sort_values(["place", "digest"]).groupby("split").head(n_of_split).sort_values("recording")
    return dict(zip(first["recording"], first["source"], strict=True))


def _write(path: Path, source: str, *, sample_rate: int, downmix: str, peak: float | None) -> None:
    # No warnings: whoever made the spectrograms was given them.
    reading = partial(open_audio, source, sample_rate=sample_rate, downmix=downmix, warn=False)
    with reading() as stream:
        first = next(stream.blocks)
        others = [float(block.abs().max()) for block in stream.blocks]  # of a long recording: it is read again below
    loudest = max(float(first.abs().max()), *others, 0.0)
    write = partial(write_flac, path, sample_rate=sample_rate, comment=repr(loudest if peak is None else peak))
    if not others:
        write(blocks=[first[0] / (loudest or 1)])
        return
    with reading() as stream:
        write(blocks=(block[0] / (loudest or 1) for block in stream.blocks))


class KeptSounds:
    """The sounds of clips, read from the dataset folder alone.

    Args:
        folder: of the dataset, or its URL.
        paths: the file of each clip, in the folder; "": its sound is not kept.
        sample_rate: of the files, Hz.
    Attributes:
        indices: (n,) int64, the clips whose sound is here; none of them, if the folder was copied without sounds.
    """

    def __init__(self, folder: str | Path, paths: Sequence[str]) -> None:
        self.folder = folder
        self._number_of, self._paths = pd.factorize(np.asarray(paths, dtype=object))
        self.indices = torch.from_numpy(np.isin(self._number_of, _numbers_here(folder, self._paths)).nonzero()[0])
        self._last: tuple[str, bytes] = ("", b"")

    def piece(self, index: int, start: int, n_samples: int) -> Tensor:
        """Reads (n_samples,) of a clip's recording from sample `start` on; beyond its end is silence.

        Raises:
            FileNotFoundError: the clip's sound is not kept.
            AudioError: its file is damaged.
        """
        path = self._paths[self._number_of[index]]
        if not path:
            raise FileNotFoundError(f"{self.folder}: the sound of clip {index} is not kept; make it with keep_sounds")
        if path != self._last[0]:  # pieces of one recording often follow one another
            self._last = (path, read_file(self.folder, path))
        try:
            samples, full_scale = read_flac(self._last[1], start, n_samples)
            return F.pad(samples * float(full_scale), (0, n_samples - len(samples)))
        except ValueError as err:
            raise AudioError(f"{self.folder}/{path}: damaged ({err}); copy the dataset again") from err

    def __getstate__(self) -> dict[str, object]:
        """A process that is sent this reads for itself."""
        return {**self.__dict__, "_last": ("", b"")}


def _numbers_here(folder: str | Path, paths: Sequence[str]) -> list[int]:
    """Which of the paths are files. Of a URL the first one stands for all: each look is a request."""
    numbers = [number for number, path in enumerate(paths) if path]
    for number in numbers:
        if not is_sound_path(paths[number]):
            message = f"its manifest has the sound {paths[number]!r}, which is no such path; do not trust this data"
            raise ValueError(f"{folder}: {message}")
    if not is_url(folder):
        return [number for number in numbers if Path(folder, paths[number]).is_file()]
    try:
        read_file(folder, paths[numbers[0]]) if numbers else None
    except FileNotFoundError:
        return []
    return numbers
