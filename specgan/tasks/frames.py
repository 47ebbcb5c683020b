"""Task: one audio file -> a numbered picture of every stretch of it, and a video of them with the sound."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track
from torch import Tensor

from specgan.audio import write_video
from specgan.batch.runner import Report
from specgan.files import write_bytes
from specgan.pictures.streams import PictureSettings, Scale, Sound, mean_power

FRAME_NAME = re.compile(r"frame_[0-9]+\.png")


def write_frames(
    input: str | Path,
    output: str | Path,
    *,
    frame_s: float | str,
    per_frame: bool = False,
    video: str | Path | None = None,
    width_px: int = 256,
    **settings: Any,
) -> Report:
    """Writes `output`/frame_0000.png and so on, the spectrograms of stretches of sound that follow each other.

    The last stretch is followed by silence, so that the time scale is the same in all. Frames of an older run go.

    Args:
        input: any audio file.
        output: folder.
        frame_s: seconds in a picture, at least one sample; a fraction such as "1/24" is taken as it is.
        per_frame: give each picture its own loudest value and noise threshold, not those of the whole file.
        video: .mp4 to make as well, of the pictures and the sound; width_px and height_px must be even.
        width_px, settings: of each picture, as `render` takes them, but hop_length None is at most a quarter of
            win_length and such that every picture has the same number of STFT columns, where there is one.
    Raises:
        FileNotFoundError, AudioError: no such file, or no sound in it.
        ValueError: an impossible setting; the message names it.
    """
    look, duration = PictureSettings(width_px=width_px, **settings), _seconds(frame_s)
    input, output = Path(input), Path(output)
    _check_outputs(input, output, video, look)
    sound = Sound(input, look)
    length = duration * sound.sample_rate  # samples in a stretch, a fraction
    if length < 1:
        raise ValueError(f"frame_s is {frame_s}; at least one sample, 1/{sound.sample_rate}")
    if look.hop_length is None:
        look = replace(look, hop_length=_even_hop(length, look.hop))
    n_pictures = math.ceil(sound.n_samples / length)
    if n_pictures > 1 and round((n_pictures - 1) * length) == sound.n_samples:
        n_pictures -= 1  # what is left rounds to no sample

    scale = Scale()
    if not per_frame:
        for _, heard in _stretches(sound, look, length, n_pictures):
            scale.add(heard)
    for old in _frames_in(output):
        old.unlink()
    pngs = _write_pngs(
        output,
        n_pictures,
        (
            look.png(look.level(power, Scale(heard) if per_frame else scale))
            for power, heard in _stretches(sound, look, length, n_pictures)
        ),
    )
    if video is None:
        for _ in pngs:
            pass
    else:
        write_video(video, map(_pixels, pngs), frame_s=duration, sound=input, downmix=look.downmix)
    made = f"{n_pictures} pictures of {input}, {float(duration):g} s each"
    return Report(n_done=n_pictures, message=f"{output}: {made}" + (f", and {video}" if video else ""))


def _seconds(frame_s: float | str) -> Fraction:
    try:
        duration = Fraction(str(frame_s)).limit_denominator(10**6)
    except (ValueError, ZeroDivisionError):
        duration = Fraction(0)
    if duration <= 0:
        raise ValueError(f"frame_s is {frame_s}; seconds in a picture, above 0, e.g. 0.1 or 1/24")
    return duration


def _check_outputs(input: Path, output: Path, video: str | Path | None, settings: PictureSettings) -> None:
    if output.exists() and not output.is_dir():
        raise ValueError(f"output is {output}, which is a file; give a folder")
    if video is None:
        return
    if Path(video).suffix.lower() != ".mp4":
        raise ValueError(f"video is {video}; give a name that ends in .mp4")
    if Path(video).resolve() == input.resolve():
        raise ValueError(f"video is {video}, which is the input; give another name")
    for name in ("width_px", "height_px"):
        if getattr(settings, name) % 2:
            raise ValueError(f"{name} is {getattr(settings, name)}; an even number for a video (H.264, yuv420p)")


def _even_hop(length: Fraction, longest: int) -> int:
    """The longest hop, at most `longest` and if possible not half of it, of which a stretch has a whole number."""
    n_least = math.ceil(length / longest)
    whole = (n for n in range(n_least, 2 * n_least) if (length / n).denominator == 1)
    return max(1, int(length / next(whole, n_least)))


def _stretches(
    sound: Sound, settings: PictureSettings, length: Fraction, n_pictures: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the power of each picture, and what of it comes before the end of the sound."""
    n_columns = math.ceil(round(n_pictures * length) / settings.hop)
    spans = (_span(round(n * length), round((n + 1) * length), settings.hop, n_columns) for n in range(n_pictures))
    last_start = round((n_pictures - 1) * length)
    last_share = min(Fraction(1), (sound.n_samples - last_start) / length)
    for number, power in enumerate(mean_power(sound, settings, spans, n_columns)):
        share = last_share if number == n_pictures - 1 else 1
        yield power, power[:, : math.ceil(power.shape[1] * share)]


def _span(start: int, end: int, hop: int, n_columns: int) -> tuple[int, int]:
    """The STFT columns whose centres lie in [start, end), or the nearest one: first, behind the last."""
    first, behind = math.ceil(start / hop), math.ceil(end / hop)
    if first < behind:
        return first, behind
    nearest = min(round((start + end) / 2 / hop), n_columns - 1)
    return nearest, nearest + 1


def _frames_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("frame_*.png") if FRAME_NAME.fullmatch(path.name) and path.is_file()]


def _write_pngs(folder: Path, n_pictures: int, pngs: Iterator[bytes]) -> Iterator[bytes]:
    n_digits = max(4, len(str(n_pictures - 1)))
    for number, png in enumerate(track(pngs, description="frames", total=n_pictures)):
        write_bytes(folder / f"frame_{number:0{n_digits}}.png", png)
        yield png


def _pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) uint8, red, green, blue."""
    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
