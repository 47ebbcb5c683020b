"""The sound of recordings, kept in the dataset folder, so that measuring does not depend on the recordings.

`<dataset>/sounds/<16 hex digits>.flac` holds a recording: the channels of its spectrograms, at the level that they
show. It is scaled to full scale, and its comment says which level that stands for. The manifest's column `sound` names
the file of each clip; it is empty for clips whose sound is not kept.

All have one sample rate, `sound_rate` of params.yaml: that of most recordings, so that what the spectrograms leave out
is heard beside what they show. In a folder of an older version, which has no `sound_rate`, it is the spectrograms'.
"""

import copy
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from specgan.audio import AudioError, note_results, open_audio, read_flac, write_flac
from specgan.data.fingerprint import fingerprint
from specgan.data.folder import is_before_sound_rates
from specgan.data.manifest import is_url, read_file
from specgan.files import remove_files

log = logging.getLogger(__name__)

SOUNDS_NAME = "sounds"  # the folder in a dataset folder
MOST_RATE = 48_000  # Hz: recordings of a higher rate are resampled, as nobody hears more

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
    channels: int = 1,
) -> tuple[pd.DataFrame, int | None]:
    """Keeps the sound of some recordings of each split; writes what is missing and removes what is stale.

    A file is named by a digest of its recording's state and of the settings, so it never replaces another. Logs a
    warning where classes differ in the rate of their recordings, by which a judge may tell them.

    Args:
        table: the manifest: recording, label, split, source and recorded_rate (Hz; 0: unknown) of each clip.
        folder: of the dataset.
        n_of_split: recordings of each split at most, chosen by the seed, each label by its share; 0: none.
        sample_rate: of the spectrograms, Hz. The sounds have the rate of most clips whose sound is kept, the higher one
            of two that are as frequent, at most `MOST_RATE`, but at least this.
        downmix: how several channels become one, see `open_audio`.
        peak: to which the recordings are scaled, at the spectrograms' rate; None: they keep their level.
        seed: another chooses other recordings.
        channels: 1 or 2, see `open_audio`.
    Returns:
        The table with the column `sound`; and what params.yaml says of the sounds' rate, Hz. None: nothing, because no
        sounds are kept, or the folder has sounds of an older version, which stay at the spectrograms' rate, so that
        runs that go on compare.
    Raises:
        OSError, AudioError: a recording cannot be read, or a sound cannot be written.
    """
    kept: dict[str, str] = {}
    chosen = _chosen(table, n_of_split, seed)
    own = {f"{SOUNDS_NAME}/{file.name}" for file in Path(folder, SOUNDS_NAME).glob("*.flac")}
    own = set(filter(is_sound_path, own))
    stays = bool(own) and is_before_sound_rates(folder)
    if stays or not chosen:
        rate = sample_rate
    else:
        rates = _rates(table, chosen)
        rate = _most_common(rates["rate"], least=sample_rate)
        _warn_of_rates(rates, rate, folder)
    how: dict[str, Any] = {"sample_rate": rate, "downmix": downmix, "peak": peak}
    how |= {"channels": channels} if channels != 1 else {}  # else the files keep their names
    # Where the rates differ, the level depends on both.
    scaling = {} if peak is None or rate == sample_rate else {"scaled_at": sample_rate}
    for recording, source in track(chosen.items(), "keeping sounds", len(chosen), transient=True, disable=not chosen):
        status = Path(source).stat()
        state = (str(source), status.st_size, status.st_mtime_ns)
        digest = fingerprint(n_digits=16, source=state, **how, **scaling)
        path = f"{SOUNDS_NAME}/{digest}.flac"
        if not Path(folder, path).exists():
            note_results(folder, [path])
            _write(Path(folder, path), source, **how, scaled_at=sample_rate)
        kept[recording] = path
    stale = own - set(kept.values())
    remove_files([*stale, f"{SOUNDS_NAME}/.partial"], folder)  # the last: so that half-written files are looked for
    if not kept:
        return table, None
    if stays:
        log.info(
            "%s: its sounds stay at the spectrograms' %d Hz, as an older version kept them, so that runs on them "
            "compare; remove the folder to have them made again at the recordings' rate",
            *(folder, rate),
        )
    return table.assign(sound=table["recording"].map(kept).fillna("")), None if stays else rate


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


def _rates(table: pd.DataFrame, chosen: Mapping[str, str]) -> pd.DataFrame:
    """Label and rate in Hz of each clip whose sound is kept."""
    clips = table[table["recording"].isin(list(chosen))]
    known = clips.groupby("recording")["recorded_rate"].first().to_dict()
    for recording, source in chosen.items():
        if not known[recording]:  # its spectrogram is of an older version
            with open_audio(source, warn=False) as stream:
                known[recording] = stream.file_rate
    return pd.DataFrame({"label": clips["label"], "rate": clips["recording"].map(known)})


def _most_common(rates: pd.Series, *, least: int) -> int:
    counts = rates.clip(upper=MOST_RATE).value_counts()
    return max(least, *(int(rate) for rate in counts.index[counts == counts.max()]))


def _warn_of_rates(rates: pd.DataFrame, kept: int, folder: str | Path) -> None:
    """Warns of classes that a judge can tell by the band of their recordings, which ends at half their rate."""
    most = rates.groupby("label")["rate"].agg(lambda of_class: _most_common(of_class, least=0))
    if most.clip(upper=kept).nunique() > 1:
        n_clips = rates.groupby(["label", "rate"]).size().to_dict()
        texts = (f"{label} {rate} Hz ({n})" for (label, rate), n in sorted(n_clips.items()))
        log.warning(
            "%s: classes were recorded at different rates, so they can be told by how high they reach instead of how "
            "they sound; resample their recordings to one rate. Clips by class and rate: %s",
            *(folder, ", ".join(texts)),
        )


def _write(
    path: Path,
    source: str,
    *,
    sample_rate: int,
    downmix: str,
    peak: float | None,
    scaled_at: int,
    channels: int = 1,
) -> None:
    # No warnings: whoever made the spectrograms was given them.
    reading = partial(open_audio, source, sample_rate=sample_rate, downmix=downmix, channels=channels, warn=False)
    with reading() as stream:
        first = next(stream.blocks)
        others = [float(block.abs().max()) for block in stream.blocks]  # of a long recording: it is read again below
    loudest = max(float(first.abs().max()), *others, 0.0)
    level = loudest if peak is None else peak
    if peak is not None and sample_rate != scaled_at:  # the gain is that of the spectrograms, which lack the upper band
        with reading(sample_rate=scaled_at) as stream:
            shown = max(float(block.abs().max()) for block in stream.blocks)
        level = peak * loudest / (shown or 1)
    write = partial(write_flac, path, sample_rate=sample_rate, channels=channels, comment=repr(level))
    if not others:
        write(blocks=[first / (loudest or 1)])
        return
    with reading() as stream:
        write(blocks=(block / (loudest or 1) for block in stream.blocks))


class KeptSounds:
    """The sounds of clips, read from the dataset folder alone.

    Args:
        folder: of the dataset, or its URL.
        paths: the file of each clip, in the folder; "": its sound is not kept.
    Attributes:
        indices: (n,) int64, the clips whose sound is here; none of them, if the folder was copied without sounds.
    """

    def __init__(self, folder: str | Path, paths: Sequence[str]) -> None:
        self.folder = folder
        self._number_of, self._paths = pd.factorize(np.asarray(paths, dtype=object))
        self.indices = torch.from_numpy(np.isin(self._number_of, _numbers_here(folder, self._paths)).nonzero()[0])
        self._last: tuple[str, bytes] = ("", b"")

    def of(self, clips: Tensor) -> "KeptSounds":
        """The sounds of some clips, (n,) int64, ascending, which are numbered from 0 then."""
        some = copy.copy(self)
        some._number_of = self._number_of[clips.numpy()]
        some.indices = torch.isin(clips, self.indices).nonzero()[:, 0]
        return some

    def piece(self, index: int, start: int, n_samples: int) -> Tensor:
        """Reads (n_samples,) or (channels, n_samples) of a clip's recording from `start` on; beyond its end is silence.

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
            return F.pad(samples * float(full_scale), (0, n_samples - samples.shape[-1]))
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
