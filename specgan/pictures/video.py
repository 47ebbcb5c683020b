"""A sound as a sequence of pictures, one for each stretch of it, and as a video of them with the sound."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from torch import Tensor

from specgan.audio import AudioStream, open_audio
from specgan.files import atomic_path, write_bytes
from specgan.pictures.scale import Scale
from specgan.pictures.settings import PictureSettings
from specgan.pictures.streams import AudioFile, mean_power

if TYPE_CHECKING:
    from av import AudioFrame

FRAME_NAME = re.compile(r"frame_[0-9]+\.png")

_AAC_RATE = 48000  # Hz, for sound at a rate that AAC does not have
_AUDIO_BLOCK = 2**14  # samples that are encoded between two pictures, 0.4 s at 44.1 kHz


class Frames:
    """Pictures of stretches of a sound that follow each other, all of one length.

    The last stretch is followed by silence, so that the time scale is the same in all.

    Args:
        audio: the sound.
        settings: of each picture. hop_length None becomes the longest hop, at most a quarter of win_length, that gives
            every picture the same number of STFT columns, where there is one.
        frame_s: seconds in a picture.
    Raises:
        ValueError: `frame_s` is less than a sample.
    """

    def __init__(self, audio: AudioFile, settings: PictureSettings, frame_s: Fraction) -> None:
        self.length = frame_s * audio.sample_rate  # samples in a picture
        if self.length < 1:
            raise ValueError(f"frame_s is {float(frame_s):g}; at least one sample, 1/{audio.sample_rate}")
        if settings.hop_length is None:
            settings = replace(settings, hop_length=even_hop(self.length, settings.hop))
        self.audio, self.settings = audio, settings
        self.n_pictures = math.ceil(audio.n_samples / self.length)
        if self.n_pictures > 1 and self._start(self.n_pictures - 1) == audio.n_samples:
            self.n_pictures -= 1  # what is left rounds to no sample

    def scale(self) -> Scale:
        """Returns the loudest level and the percentiles of the whole sound. Reads it once."""
        scale = Scale()
        for power, n_columns in self._powers():
            scale.add(power[:, :n_columns])
        return scale

    def pngs(self, scale: Scale | None) -> Iterator[bytes]:
        """Yields the pictures; with `scale` None each has its own. Reads the sound once."""
        for power, n_columns in self._powers():
            yield self.settings.png(self.settings.level(power, scale or Scale(power[:, :n_columns])))

    def _powers(self) -> Iterator[tuple[Tensor, int]]:
        """Yields the power of each picture, and how many of its columns lie before the end of the sound."""
        last = self.n_pictures - 1
        last_share = min(Fraction(1), (self.audio.n_samples - self._start(last)) / self.length)
        n_columns = math.ceil(self._start(self.n_pictures) / self.settings.hop)
        starts = [self._start(number) for number in range(self.n_pictures + 1)]
        spans = (stft_columns(*stretch, self.settings.hop, n_columns) for stretch in pairwise(starts))
        for number, power in enumerate(mean_power(self.audio, self.settings, spans, n_columns)):
            share = last_share if number == last else 1
            yield power, math.ceil(power.shape[1] * share)

    def _start(self, number: int) -> int:
        """The first sample of a picture."""
        return round(number * self.length)


def even_hop(length: Fraction, longest: int) -> int:
    """The longest hop that divides `length`, at most `longest` and more than half of it; else about the longest."""
    n_least = math.ceil(length / longest)
    whole = (n for n in range(n_least, 2 * n_least) if (length / n).denominator == 1)
    return max(1, int(length / next(whole, n_least)))


def stft_columns(start: int, end: int, hop: int, n_columns: int) -> tuple[int, int]:
    """The first STFT column whose centre lies in [start, end) and the one behind the last; or the nearest column."""
    first, behind = math.ceil(start / hop), math.ceil(end / hop)
    if first < behind:
        return first, behind
    nearest = min(round((start + end) / 2 / hop), n_columns - 1)
    return nearest, nearest + 1


def frame_names(n_pictures: int) -> list[str]:
    """frame_0000.png and so on, with as many digits as the last number needs."""
    n_digits = max(4, len(str(n_pictures - 1)))
    return [f"frame_{number:0{n_digits}}.png" for number in range(n_pictures)]


def write_pngs(folder: Path, pngs: Iterable[bytes], names: Iterable[str]) -> Iterator[bytes]:
    """Writes pictures under their names, and yields each again."""
    for name, png in zip(names, pngs, strict=False):
        write_bytes(folder / name, png)
        yield png


def write_video(
    path: str | Path, pngs: Iterable[bytes], *, frame_s: Fraction, sound: str | Path, downmix: str = "mean"
) -> None:
    """Writes an MP4 (H.264, AAC) of pictures with their sound, whole or not at all, as they come.

    Args:
        path: the file; its folder is created.
        pngs: in colour, at least one, all of one size, height and width even.
        frame_s: seconds that each is shown; the first begins with the sound.
        sound: any audio file. One or two channels stay as they are, more become one.
        downmix: how several channels become one, see `open_audio`.
    Raises: as `open_audio`.
    """
    import av

    with open_audio(sound, mono=False) as stream:
        rate, n_channels = stream.sample_rate, stream.n_channels
    if rate not in (av.codec.Codec("aac", "w").audio_rates or ()):
        rate = _AAC_RATE
    with (
        atomic_path(path) as temporary,
        open_audio(sound, sample_rate=rate, mono=n_channels > 2, downmix=downmix, block_frames=_AUDIO_BLOCK) as stream,
        av.open(str(temporary), "w", format="mp4") as container,
    ):
        video = container.add_stream("libx264", rate=1 / frame_s, options={"crf": "18"})  # fine lines stay
        audio = container.add_stream("aac", rate=rate, layout="mono" if stream.n_channels == 1 else "stereo")
        blocks = _audio_frames(stream)
        n_samples = 0
        for number, png in enumerate(pngs):
            pixels = _pixels(png)
            if number == 0:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, frame_s
            container.mux(video.encode(frame))
            # Side by side, so that neither waits in memory.
            while n_samples < (number + 1) * frame_s * rate and (block := next(blocks, None)) is not None:
                container.mux(audio.encode(block))
                n_samples += block.samples
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _audio_frames(stream: AudioStream) -> "Iterator[AudioFrame]":
    from av import AudioFrame

    n_samples = 0
    for block in stream.blocks:
        frame = AudioFrame.from_ndarray(
            block.numpy(), format="fltp", layout="mono" if stream.n_channels == 1 else "stereo"
        )
        frame.sample_rate, frame.pts = stream.sample_rate, n_samples
        frame.time_base = Fraction(1, stream.sample_rate)
        yield frame
        n_samples += block.shape[1]


def _pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) uint8, red, green, blue."""
    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
