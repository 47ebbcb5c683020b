"""Task: pictures that hold magnitude and phase (see specgan.codec.coding) -> one WAV for each song."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import WAV_SUBTYPES, note_results, save_wav
from specgan.batch.executors import serial
from specgan.batch.failures import UnitError, failure_of, stage
from specgan.batch.journal import Journal, Partly, made_from, run_missing
from specgan.batch.runner import Batch, Report, one_by_one
from specgan.codec.coding import CodecError, CodecParams, count_slices, decode_spectrum
from specgan.codec.fitting import fit_picture
from specgan.codec.joining import JoinedSlices
from specgan.codec.png import SliceInfo, from_png, read_info
from specgan.codec.songs import Picture, SongPictures, alone, group_pictures
from specgan.files import Outputs, find_files
from specgan.vocoders.griffin_lim import griffin_lim

log = logging.getLogger(__name__)

JOURNAL_NAME = ".decode.jsonl"
PHASES = ("picture", "griffin_lim")

# Up to these a song is decoded whatever its text says. The text of a damaged picture may claim any length.
_MOST_SAMPLES = 2**28  # of all channels together, 1.7 hours at 44.1 kHz: they fit into memory
_MOST_SLICES = 2**16
_MOST_SILENCE = 100  # a longer song may be this many times as long as its pictures
_GRIFFIN_LIM_FACTOR = 16  # memory of Griffin-Lim for each sample, as a multiple of that without


@dataclass(frozen=True)
class _Settings:
    phase: str
    n_iter: int
    sample_rate: int | None
    phase_encoding: str
    range_db: float
    subtype: str
    on_error: str


def decode_pictures(
    input: str | Path,
    output: str | Path,
    *,
    phase: str = "picture",
    n_iter: int = 32,
    sample_rate: int | None = None,
    phase_encoding: str = CodecParams.phase_encoding,
    range_db: float = CodecParams.range_db,
    subtype: str = "FLOAT",
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
) -> Report:
    """Writes `<output>/<song>.wav`, with exactly as many samples as the song had.

    Pictures are put together by their text, whatever their names are now. Slices that are missing or damaged are logged
    and become silence. Pictures without text, from an image model, each become a song, named after the picture. A
    second run writes only songs that are missing or whose pictures or settings changed.

    Args:
        input: folder of PNGs, searched with its subfolders; or one PNG, to decode that slice alone.
        output: folder; for one PNG a file that ends in .wav.
        phase: "picture"; or "griffin_lim", for pictures whose phase is useless: Griffin-Lim keeps the magnitude and
            looks for a phase that fits, starting from the picture's. It needs about 350 MB for each minute and channel
            of a song.
        n_iter: iterations of Griffin-Lim.
        sample_rate: Hz of pictures without text, which need it.
        phase_encoding, range_db: of pictures without text, see CodecParams.
        subtype: "FLOAT" (32 bit), "PCM_24" or "PCM_16"; in the last two, songs beyond full scale are made quieter.
        executor: opens the workers, see batch.executors.
        on_error: "skip" records a bad picture in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: no picture, impossible arguments, or a file is in the way that no earlier run
            wrote; nothing is written.
    """
    input, output = Path(os.path.abspath(input)), Path(os.path.abspath(output))  # the workers may run elsewhere
    settings = _Settings(phase, n_iter, sample_rate, phase_encoding, range_db, subtype, on_error)
    _check(settings)
    if input.is_file():
        if output.suffix != ".wav":
            raise ValueError(f"output is {output}; one picture is decoded to one file: give a name that ends in .wav")
        song, outputs = alone(_read(input), output.stem), Outputs(output.parent, "decode")
        outputs.claim([output.name])
        _decode_song(song, settings=settings, output=output.parent)
        return Report(n_done=1, message=f"{output}: sound of {input}")
    if output.suffix.lower() == ".wav":
        raise ValueError(f"output is {output}; a folder of pictures is decoded to a folder of songs: give a folder")

    paths = find_files(input, (".png",))
    if not paths:
        raise ValueError(f"{input}: no PNG in it or its subfolders; check the path")
    pictures, unread = [], []
    for path in paths:
        try:
            pictures.append(_read(path))
        except UnitError as err:
            unread.append(failure_of(Picture(path, None), err, on_error))
    songs = group_pictures(pictures, input)
    _report(songs, settings)
    journal: Journal[dict[str, Any]] = Journal(
        output, {**asdict(settings), "input": str(input.resolve())}, name=JOURNAL_NAME, endings=r"\.wav"
    )
    make = partial(_decode_song, settings=settings, output=output)
    run = partial(Batch(executor, on_error, "songs").run, work=partial(one_by_one, make=make))
    made, failures, n_skipped = run_missing(journal, songs, run, failures=unread)
    return Report(
        n_done=sum(bool(entry["outputs"]) for entry in made.values()),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output}: the sound of {len(pictures)} pictures",
    )


def _check(settings: _Settings) -> None:
    if settings.phase not in PHASES:
        raise ValueError(f"phase is {settings.phase!r}; picture or griffin_lim")
    if settings.n_iter < 0:
        raise ValueError(f"n_iter is {settings.n_iter}; at least 0")
    if settings.sample_rate is not None and settings.sample_rate < 1:
        raise ValueError(f"sample_rate is {settings.sample_rate}; Hz, at least 1")
    if settings.subtype not in WAV_SUBTYPES:
        raise ValueError(f"subtype is {settings.subtype!r}; one of {', '.join(WAV_SUBTYPES)}")
    CodecParams(phase_encoding=settings.phase_encoding, range_db=settings.range_db)


def _read(path: Path) -> Picture:
    with _reading(path), path.open("rb") as file:
        return Picture(path, read_info(file))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with stage("read"):
        try:
            yield
        except CodecError as err:
            raise CodecError(f"{path}: {err}") from err


def _report(songs: Sequence[SongPictures], settings: _Settings) -> None:
    """Logs which slices are missing, and how pictures without text are decoded."""
    for song in songs:
        for channel, missing in song.missing().items():
            info = song.pictures[0].info
            of_channel = f" of channel {channel}" if info.n_channels > 1 else ""
            log.warning(
                "%s: slices %s%s are missing (of %d): silence in their place",
                *(song.key, ", ".join(missing), of_channel, info.n_slices),
            )
    unknown = [song.source for song in songs if song.pictures[0].info is None]
    if unknown:
        log.warning(
            "%d pictures have no text that says how to decode them, e.g. %s: each becomes a song, with sample_rate=%s "
            "phase_encoding=%s range_db=%g",
            *(len(unknown), unknown[0], settings.sample_rate, settings.phase_encoding, settings.range_db),
        )


@torch.inference_mode()
def _decode_song(song: SongPictures, *, settings: _Settings, output: Path) -> dict[str, Any] | Partly[dict[str, Any]]:
    """Work for `Batch.run`."""
    with stage("read"):
        state = made_from(song.sources)
    failures, remarks, info = [], {}, None
    channels: dict[int, JoinedSlices | _PhaseSearch] = {}
    for picture in song.pictures:
        try:
            info, spectrum, changes = _load(picture, settings)
        except UnitError as err:
            if len(song.pictures) == 1 or settings.on_error == "raise":
                raise
            failures.append(failure_of(picture, err, settings.on_error))
            continue
        remarks.update(dict.fromkeys(changes))
        with stage("decode"):
            if info.channel not in channels:
                _check_length(song, info, settings)
                whole = JoinedSlices if settings.phase == "picture" else partial(_PhaseSearch, n_iter=settings.n_iter)
                channels[info.channel] = whole(info.n_kept, info.params)
            channels[info.channel].add(info.number, spectrum)
    for remark in remarks:
        log.warning("%s: %s", song.source, remark)
    if info is None:
        return Partly({"made_from": state, "outputs": []}, failures)

    with stage("decode"):
        silence = torch.zeros(1).expand(info.n_kept)
        waveform = torch.stack(
            [channels[n].waveform() if n in channels else silence for n in range(info.n_channels)]
        ).div_(info.gain)
        if info.offset or info.n_trimmed:
            waveform = F.pad(waveform, (info.offset, info.n_trimmed))
    with stage("write"):
        note_results(output, [f"{song.key}.wav"])
        save_wav(output / f"{song.key}.wav", waveform, info.sample_rate, subtype=settings.subtype)
    entry = {"made_from": state, "outputs": [f"{song.key}.wav"]}
    return Partly(entry, failures) if failures else entry


def _check_length(song: SongPictures, info: SliceInfo, settings: _Settings) -> None:
    """Raises CodecError for a text that claims far more samples than memory or the song's pictures can hold."""
    claimed, held = info.n_samples * info.n_channels, len(song.pictures) * info.params.slice_samples
    needed = claimed * (_GRIFFIN_LIM_FACTOR if settings.phase == "griffin_lim" else 1)
    most_slices = max(_MOST_SLICES, _MOST_SILENCE * len(song.pictures))
    if needed > max(_MOST_SAMPLES, _MOST_SILENCE * held) or info.n_slices > most_slices:
        raise CodecError(
            f"{song.source}: its text claims {claimed} samples, and its song's {len(song.pictures)} pictures hold "
            f"{held} at most; add the missing pictures, or decode it alone: input=<picture>.png output=<slice>.wav"
        )


def _load(picture: Picture, settings: _Settings) -> tuple[SliceInfo, Tensor, list[str]]:
    """Reads a picture: its info, its STFT (bins, size), and remarks on how it was changed to read it."""
    with _reading(picture.source):
        pixels, _ = from_png(picture.source.read_bytes())
        info, has_phase = picture.info, settings.phase == "picture"
        pixels, params, remarks = fit_picture(
            pixels,
            None if info is None else info.params,
            phase_encoding=settings.phase_encoding,
            range_db=settings.range_db,
            griffin_lim=not has_phase,
        )
        if info is None:
            if settings.sample_rate is None:
                raise CodecError(
                    "it has no text of specgan, so its sample rate is unknown; give it: task.sample_rate=44100"
                )
            info = SliceInfo(params, settings.sample_rate, picture.source.stem, n_samples=params.slice_samples)
    with stage("decode"):
        return info, decode_spectrum(pixels, params), remarks


class _PhaseSearch:
    """Like JoinedSlices, but Griffin-Lim replaces the phase by one that fits the magnitudes."""

    def __init__(self, n_samples: int, params: CodecParams, *, n_iter: int) -> None:
        self.params, self.n_samples, self.n_iter = params, n_samples, n_iter
        n_frames = count_slices(n_samples, params) * params.size
        self.spectrum = torch.zeros(params.size + 1, n_frames, dtype=torch.complex64)

    def add(self, number: int, spectrum: Tensor) -> None:
        self.spectrum[:, number * self.params.size : (number + 1) * self.params.size] = spectrum

    def waveform(self) -> Tensor:
        p = self.params
        return griffin_lim(self.spectrum[None], n_fft=p.n_fft, hop_length=p.hop_length, n_iter=self.n_iter)[
            0, : self.n_samples
        ]
