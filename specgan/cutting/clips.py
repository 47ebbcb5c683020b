"""Stretches of a recording -> the files of clips."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from specgan.audio import open_audio, origin_note, recording_id, save_flac, save_wav, subtype_of
from specgan.cutting.scan import Scan
from specgan.cutting.settings import CutSettings
from specgan.cutting.spans import Span


def write_clips(
    source: str | Path, found: Scan, spans: Sequence[Span], paths: Sequence[str | Path], settings: CutSettings
) -> list[float]:
    """Writes clips with the rate, the channels and the bits of their recording; see `subtype_of`.

    The recording is read once more, in blocks: memory holds one clip at a time. Each file says which recording it is
    of, see `audio.origin`. If a clip cannot be written, none stays.

    Args:
        source: the recording.
        found: what `scan` says of it.
        spans: ascending stretches that do not overlap.
        paths: of the clips.
        settings: how they fade, and their format.
    Returns:
        The largest absolute sample of each clip.
    Raises:
        OSError, AudioError: the recording cannot be read any more, or a clip cannot be written.
        ValueError: a clip is not what the format holds, see `save_flac`.
    """
    recording = recording_id(source)
    subtype = subtype_of(source)
    if found.peak > 1.0 and settings.format == "wav":  # of a coding with loss: PCM would clip
        subtype = "FLOAT"
    peaks, written = [], []
    try:
        for (start, _), path, samples in zip(spans, paths, _cut(source, spans), strict=True):
            clip = _faded(samples, found.sample_rate, settings)
            note = origin_note(recording, source, start / found.sample_rate)
            written.append(Path(path))
            if settings.format == "flac":
                subtype = "PCM_24" if subtype == "FLOAT" else subtype
                save_flac(path, clip, found.sample_rate, subtype=subtype, comment=note)
            else:
                save_wav(path, clip, found.sample_rate, subtype=subtype, info={"ICMT": note})
            peaks.append(float(clip.abs().max()))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return peaks


def _cut(source: str | Path, spans: Iterable[Span]) -> Iterator[Tensor]:
    """Yields (channels, end - start) of each stretch."""
    with open_audio(source, mono=False, warn=False) as stream:
        blocks, at, block = iter(stream.blocks), 0, torch.zeros(stream.n_channels, 0)
        for start, end in spans:
            parts = []
            while True:
                parts.append(block[:, max(0, start - at) : max(0, end - at)])
                if at + block.shape[1] >= end:
                    break
                at += block.shape[1]
                block = next(blocks)
            yield torch.cat(parts, dim=1)


def _faded(samples: Tensor, sample_rate: int, settings: CutSettings) -> Tensor:
    """(channels, n) -> the same, with its ends faded over raised cosines, together at most the whole."""
    n_in, n_out = (round(ms / 1000 * sample_rate) for ms in (settings.fade_in_ms, settings.fade_out_ms))
    n_in, n_out = (min(n, samples.shape[1] // 2) for n in (n_in, n_out))
    if n_in:
        samples[:, :n_in] *= torch.sin(torch.pi / 2 * torch.arange(n_in) / n_in).square()
    if n_out:
        samples[:, -n_out:] *= torch.cos(torch.pi / 2 * torch.arange(1, n_out + 1) / n_out).square()
    return samples
