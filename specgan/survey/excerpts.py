"""Beginnings of a few recordings of each class, to see and to hear."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from specgan.audio import encode_flac, open_audio
from specgan.pictures.pages import data_uri
from specgan.pictures.scale import Scale
from specgan.pictures.settings import PictureSettings
from specgan.spectrogram import power_blocks
from specgan.survey.spectrum import fft_size

HIGHEST_RATE = 48000  # Hz, of what is shown

_WIDTH_PX, _HEIGHT_PX = 240, 160
_DASH_PX = 4


@dataclass(frozen=True)
class Excerpt:
    """A caption, and a picture and a sound as data URIs."""

    caption: str
    picture: str
    audio: str


def common_rate(table: pd.DataFrame) -> int:
    """The sample rate in Hz at which all recordings are shown, so that it can be seen which have no highs."""
    return min(int(table["sample_rate"].max()), HIGHEST_RATE)


def excerpts(
    table: pd.DataFrame, *, n_each: int, most_s: float, mark_hz: float | None = None
) -> dict[str, list[Excerpt]]:
    """Reads a few recordings of each class, from the shortest to the longest.

    Args:
        table: a row for each recording, see `findings`, with the column source.
        n_each: recordings of a class, at most.
        most_s: seconds of each that are shown, at most.
        mark_hz: a frequency to draw a line at; None: none.
    Raises:
        OSError, AudioError: a recording cannot be read any more.
    """
    rate = common_rate(table)
    return {
        str(label): [_excerpt(row, rate, most_s, mark_hz) for row in spread(own, n_each).itertuples()]
        for label, own in table.groupby("label")
    }


def spread(own: pd.DataFrame, n: int) -> pd.DataFrame:
    """Chooses n recordings, evenly spaced from the shortest to the longest; the median if n is 1."""
    ordered = own.sort_values(["duration_s", "path"])
    if n >= len(ordered):
        return ordered
    places = torch.linspace(0, len(ordered) - 1, n) if n > 1 else torch.tensor([(len(ordered) - 1) // 2])
    return ordered.iloc[sorted(set(places.round().int().tolist()))]


def _excerpt(row, rate: int, most_s: float, mark_hz: float | None) -> Excerpt:
    waveform = _beginning(row.source, rate, round(most_s * rate))
    ends = "silent" if pd.isna(row.band_hz) else f"to {row.band_hz:.0f} Hz"
    caption = f"{row.path}, {row.duration_s:.2f} s, {row.sample_rate} Hz, {ends}"
    return Excerpt(
        caption,
        picture=data_uri("image/png", _draw(waveform, rate, mark_hz)),
        audio=data_uri("audio/flac", encode_flac(waveform[0], rate)),
    )


def _beginning(source: str, rate: int, n_samples: int) -> Tensor:
    """(1, at most n_samples)"""
    parts: list[Tensor] = []
    with open_audio(source, sample_rate=rate, downmix="mean", warn=False) as stream:
        for block in stream.blocks:
            parts.append(block)
            if sum(part.shape[1] for part in parts) >= n_samples:
                break
    return torch.cat(parts, dim=1)[:, :n_samples]


def _draw(waveform: Tensor, rate: int, mark_hz: float | None) -> bytes:
    n_fft = fft_size(rate) // 2
    look = PictureSettings(n_fft=n_fft, frequency_axis="linear", width_px=_WIDTH_PX, height_px=_HEIGHT_PX)
    hop_length = max(1, min(n_fft, waveform.shape[1] // _WIDTH_PX))
    blocks: Sequence[Tensor] = list(power_blocks([waveform], n_fft=n_fft, win_length=n_fft, hop_length=hop_length))
    power = look.rows(rate) @ torch.cat(blocks, dim=-1)[0]
    level = look.level(power, Scale(power)).clone()
    row = _HEIGHT_PX if mark_hz is None else round(mark_hz / (rate / 2) * _HEIGHT_PX)
    if row < _HEIGHT_PX:
        level[row].view(-1, 2 * _DASH_PX)[:, :_DASH_PX] = 0.0
    return look.png(level)
