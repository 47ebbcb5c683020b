"""Task: a folder of songs -> a caption for every slice, named like its picture, and the table that trainers read."""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from specgan.audio import load_audio, resample
from specgan.batch.executors import SerialExecutor, serial
from specgan.batch.failures import UnitError, stage
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Batch, Report, one_by_one
from specgan.captions.caption import SILENCE, Caption, Captioner
from specgan.captions.tempo import HIGHEST_BPM, LOWEST_BPM, find_tempo
from specgan.codec.coding import CodecParams
from specgan.codec.png import SliceInfo
from specgan.codec.slices import Slicing, SongFile, find_songs, measure, picture_names, read_slices
from specgan.files import write_text

JOURNAL_NAME = ".captions.jsonl"
SONGS_JOURNAL_NAME = ".songs.jsonl"
METADATA_NAME = "metadata.jsonl"
SCORES_NAME = "scores.jsonl"

_TEMPO_RATE = 22050  # Hz, librosa's own
_NOT_OF_TEXTS = {"batch_size", "device", "cache_dir", "sample_rate"}  # settings of a captioner that change no text


@dataclass(frozen=True)
class _Slice:
    song: SongFile
    info: SliceInfo  # of this slice
    bpm: float | None

    @property
    def key(self) -> str:
        return f"{self.song.key}_{self.info.number:04d}"

    @property
    def source(self) -> Path:
        return self.song.source

    @property
    def sources(self) -> list[Path]:
        return self.song.sources


def caption_songs(
    input: str | Path,
    output: str | Path,
    *,
    captioner: Captioner | None,
    artist: str | None = None,
    title: str | None = None,
    tempo: bool = True,
    lowest_bpm: float = LOWEST_BPM,
    highest_bpm: float = HIGHEST_BPM,
    recursive: bool = True,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
    **slicing: Any,
) -> Report:
    """Writes `<song>_<slice>.txt` for every picture that `encode_songs` writes with the same settings, and the tables.

    `metadata.jsonl` has a line for each picture (`file_name`, `text`, ...), as image-folder trainers read it;
    `scores.jsonl` has the tags of captioners that return tags. The model is loaded once, in this process. A run that
    was killed continues after the last batch.

    Args:
        input: folder of audio files, or one file.
        output: folder; with pictures of the same songs, a data set of pictures and texts.
        captioner: e.g. captions.muq.MuQCaptioner.
        artist: put before each text, "style of <artist>. ".
        title: written to the table only.
        tempo: find the beats of each whole song, and end the texts of songs with a beat with the BPM.
        lowest_bpm, highest_bpm: see captions.tempo.find_tempo.
        recursive: search the subfolders too.
        executor: opens the workers that read the songs and find their tempo, see batch.executors.
        on_error: "skip" records unreadable files in failures.csv and goes on; "raise" stops at the first.
        slicing: the fields of `Slicing` (sample_rate, mono, downmix, trim_db) and the size of the pictures.
    Raises:
        FileNotFoundError, ValueError: no audio file, impossible arguments, or a file is in the way that no earlier run
            wrote; nothing of it is replaced.
        MissingWeightsError: the captioner's model is not there.
    """
    if captioner is None:
        raise ValueError("captioner is none, which writes no captions; give captioner=muq or captioner=qwen2_audio")
    how = Slicing.of(**slicing)
    output = Path(os.path.abspath(output))
    songs = find_songs(input, recursive=recursive)
    tempo_range = (lowest_bpm, highest_bpm) if tempo else None
    measured_with = {**asdict(how), "tempo": tempo_range, "input": os.path.realpath(input)}

    settings = {**measured_with, "artist": artist, **_settings(captioner)}
    tables = (METADATA_NAME, SCORES_NAME)
    endings = r"(_ch\d+)?\.txt"
    journal: Journal[dict[str, Any]] = Journal(output, settings, name=JOURNAL_NAME, endings=endings, tables=tables)
    journal.require_free(())
    if journal.is_outdated or not journal.entries:
        captioner.load()  # a missing model is an error now, not after the beats of a thousand songs

    known: Journal[dict[str, Any]] = Journal(output, measured_with, name=SONGS_JOURNAL_NAME)
    make = partial(_measure_song, slicing=how, tempo_range=tempo_range)
    run = partial(Batch(executor, on_error, "songs").run, work=partial(one_by_one, make=make))
    _, failures, _ = run_missing(known, songs, run)

    slices = [each for song in songs if song.key in known.entries for each in _slices(song, known.entries[song.key])]
    with closing(_Reader(how)) as reader:
        work = partial(_caption, captioner=captioner, reader=reader, artist=artist, output=output)
        # In this process, with all threads: there is one model.
        batch = Batch(lambda: nullcontext(SerialExecutor()), on_error, "captions")
        in_batches = partial(batch.run, work=work, chunk=captioner.batch_size)
        captioned, failures, n_skipped = run_missing(journal, slices, in_batches, failures=failures)
    done = [each for each in slices if each.key in journal.entries]
    _write_tables(output, done, journal.entries, artist=artist, title=title)
    return Report(
        n_done=len(captioned),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output}: captions of {len(done)} slices of {len({each.song.key for each in done})} songs",
    )


def _settings(captioner: Captioner) -> dict[str, Any]:
    """What its captions depend on."""
    values = {name: value for name, value in vars(captioner).items() if not name.startswith("_")}
    plain = str | int | float | bool | list | tuple | dict | None
    return {
        "captioner": type(captioner).__name__,
        **{name: value for name, value in values.items() if name not in _NOT_OF_TEXTS and isinstance(value, plain)},
    }


def _measure_song(song: SongFile, *, slicing: Slicing, tempo_range: tuple[float, float] | None) -> dict[str, Any]:
    """Work for `Batch.run`: how a song is sliced, and its tempo."""
    with stage("decode"):
        state = made_from(song.sources)
        info = measure(song, slicing)
        bpm = None
        if tempo_range is not None:
            lowest, highest = tempo_range
            waveform, _ = load_audio(song.source, sample_rate=_TEMPO_RATE, mono=True, downmix=slicing.downmix)
            bpm = find_tempo(waveform[0], _TEMPO_RATE, lowest=lowest, highest=highest)
    return {"made_from": state, "outputs": [], "info": {**asdict(info), "params": info.params.size}, "bpm": bpm}


def _slices(song: SongFile, entry: Mapping[str, Any]) -> Iterator[_Slice]:
    # song.key, because a journal from elsewhere may name places outside the folder
    info = SliceInfo(**{**entry["info"], "song": song.key, "params": CodecParams(size=entry["info"]["params"])})
    for number in range(info.n_slices):
        yield _Slice(song, replace(info, number=number), entry["bpm"])


class _Reader:
    """Reads slices of songs, and decodes a song once for consecutive slices."""

    def __init__(self, slicing: Slicing) -> None:
        self.slicing = slicing
        self.song: SongFile | None = None
        self.next = 0
        self.segments: Generator[Tensor] | None = None

    def read(self, wanted: _Slice) -> Tensor:
        """Returns the samples of the slice without its overlaps, (n_samples,)."""
        if wanted.song != self.song or wanted.info.number < self.next:
            self.close()
            self.segments, self.next = read_slices(wanted.song, wanted.info, self.slicing), 0
            self.song = wanted.song
        while self.next <= wanted.info.number:
            segment = next(self.segments)
            self.next += 1
        before = wanted.info.params.n_fft // 2  # samples that belong to the slice before
        return segment[:, before : before + wanted.info.slice_length].mean(dim=0)

    def close(self) -> None:
        if self.song is not None:
            self.segments.close()
        self.song = None


def _caption(
    slices: Sequence[_Slice], *, captioner: Captioner, reader: _Reader, artist: str | None, output: Path
) -> list[Any]:
    """Work for `Batch.run`: the entry of each slice, or its UnitError."""
    results: dict[int, Any] = {}
    waveforms: dict[int, Tensor] = {}
    for place, wanted in enumerate(slices):
        try:
            with stage("decode"):
                waveform = reader.read(wanted)
                waveforms[place] = resample(waveform[None], wanted.info.sample_rate, captioner.sample_rate)[0]
        except UnitError as err:
            results[place] = err
    captions = captioner(list(waveforms.values())) if waveforms else []
    for place, caption in zip(waveforms, captions, strict=True):
        try:
            results[place] = _write(slices[place], caption, artist=artist, output=output)
        except UnitError as err:
            results[place] = err
    return [results[place] for place in range(len(slices))]


def _write(wanted: _Slice, caption: Caption, *, artist: str | None, output: Path) -> dict[str, Any]:
    text = caption.text
    if wanted.bpm is not None and text != SILENCE:
        text = f"{text} {wanted.bpm:.0f} BPM."
    if artist:
        text = f"style of {artist}. {text}"
    outputs = [str(PurePosixPath(name).with_suffix(".txt")) for name in picture_names(wanted.info, wanted.info.number)]
    with stage("write"):
        for path in outputs:
            write_text(output / path, text + "\n")
        return {"made_from": made_from(wanted.sources), "outputs": outputs, "text": text, "tags": caption.tags}


def _write_tables(
    output: Path,
    slices: Sequence[_Slice],
    entries: Mapping[str, Mapping[str, Any]],
    *,
    artist: str | None,
    title: str | None,
) -> None:
    metadata, scores = [], []
    for each in slices:
        info, entry = each.info, entries[each.key]
        about = {
            "text": entry["text"],
            "tags": [word for group in entry["tags"].values() for word in group],
            "bpm": None if each.bpm is None else round(each.bpm, 2),
            "artist": artist,
            "title": title,
            "song": each.song.key,
            "start_s": round((info.offset + info.number * info.params.slice_samples) / info.sample_rate, 6),
            "duration_s": round(info.slice_length / info.sample_rate, 6),
        }
        for name in picture_names(info, info.number):
            metadata.append({"file_name": name, **about})
            scores += [{"file_name": name, **entry["tags"]}] if entry["tags"] else []
    for name, rows in ((METADATA_NAME, metadata), (SCORES_NAME, scores)):
        if not rows:
            (output / name).unlink(missing_ok=True)
            continue
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(output / name, "".join(lines), errors="replace")
