"""Task: one audio file -> a numbered picture of every stretch of it, and a video of them with the sound."""

from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.progress import track

from specgan.audio import note_results
from specgan.batch.runner import Report
from specgan.files import Outputs, remove_files
from specgan.pictures.settings import PictureSettings
from specgan.pictures.streams import AudioFile
from specgan.pictures.video import FRAME_NAME, Frames, frame_names, write_pngs, write_video


def write_frames(
    input: str | Path,
    output: str | Path,
    *,
    frame_s: float | str,
    per_frame: bool = False,
    video: str | Path | None = None,
    **settings: Any,
) -> Report:
    """Writes `output`/frame_0000.png and so on, the spectrograms of stretches of sound that follow each other.

    The last stretch is followed by silence, so that the time scale is the same in all. Frames of an older run are
    removed.

    Args:
        input: any audio file.
        output: folder.
        frame_s: seconds in a picture, at least one sample; a fraction such as "1/24" is used exactly.
        per_frame: give each picture its own loudest value and noise threshold, not those of the whole file.
        video: .mp4 of the pictures and the sound, written too; width_px and height_px must be even. None: no video.
        settings: of each picture, the fields of `PictureSettings`; for hop_length None see `Frames`.
    Raises:
        FileNotFoundError, AudioError: no such file, or no sound in it.
        ValueError: an impossible setting, or a file is in the way that no earlier run wrote; the message names it.
    """
    look, duration_s = PictureSettings(**settings), _seconds(frame_s)
    input, output = Path(input), Path(output)
    _check_outputs(input, output, video, look)
    frames = Frames(AudioFile(input, look), look, duration_s)
    names = frame_names(frames.n_pictures)
    _claim(output, names, video)
    pngs = frames.pngs(None if per_frame else frames.scale())
    written = write_pngs(output, track(pngs, description="frames", total=frames.n_pictures), names)
    if video is None:
        deque(written, maxlen=0)
    else:
        note_results(Path(video).parent, [Path(video).name])
        write_video(video, written, frame_s=duration_s, sound=input, downmix=look.downmix)
    message = f"{output}: {frames.n_pictures} pictures of {input}, {float(duration_s):g} s each"
    return Report(n_done=frames.n_pictures, message=message + (f", and {video}" if video else ""))


def _claim(output: Path, names: list[str], video: str | Path | None) -> None:
    """Notes what will be written, and removes the frames of an older run."""
    outputs = Outputs(output, "frames")
    outputs.require_free(names)
    if video is not None:
        Outputs(Path(video).parent, "frames").claim([Path(video).name])
    older = {name for name in outputs.known if FRAME_NAME.fullmatch(name)}
    outputs.claim(names)
    remove_files(older, output)


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
