"""One drawn spectrogram -> its sound and picture."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import specgan
from specgan.audio import WavFacts, WavSettings
from specgan.files import write_bytes
from specgan.models.trained import TrainedGenerator
from specgan.pictures.figures import to_png
from specgan.vocoders.learned import Learned

log = logging.getLogger(__name__)


class SoundFiles(NamedTuple):
    """The files of one sound, and what the WAV holds."""

    wav: Path
    png: Path
    facts: WavFacts


def make_vocoder(trained: TrainedGenerator, vocoder: Callable[..., nn.Module], *, carried: bool = True) -> nn.Module:
    """Makes what turns the spectrograms of a generator into sound.

    Args:
        trained: the generator.
        vocoder: called with its params and level_range.
        carried: use the vocoder that its checkpoint carries instead, if it carries one.
    Raises:
        ValueError: what the checkpoint carries is no vocoder for its spectrograms.
    """
    if not carried or trained.vocoder is None:
        return vocoder(trained.params, trained.level_range)
    log.info("the vocoder that %s carries is used (carried_vocoder=false: another)", trained.checkpoint)
    return Learned(trained.params, trained.level_range, held=trained.vocoder)


@torch.inference_mode()
def vocode(
    spectrograms: Tensor,
    vocoder: nn.Module,
    *,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    batch_size: int = 1,
) -> Iterator[Tensor]:
    """Yields the waveform of each spectrogram, on the CPU: (T,) or (channels, T).

    The FFT and the filters round differently in batches of other sizes, so all batches have one size, and the last one
    is filled up: a sound has the same bytes whatever others are given with it.

    Args:
        spectrograms: (B, channels, n_mels, n_frames) in [-1, 1].
        vocoder: on the device; called with a batch and its seeds, returns waveforms (B, T) or (B, channels, T).
        seeds: of the vocoder's phases.
        device: where the vocoder is.
        batch_size: spectrograms that it gets at a time; a CPU is busy with 1.
    """
    for start in range(0, len(seeds), batch_size):
        part, own = spectrograms[start : start + batch_size], list(seeds[start : start + batch_size])
        n_lacking = batch_size - len(own)
        filled = torch.cat([part, part.new_full((n_lacking, *part.shape[1:]), -1.0)])
        with repeatable():
            waveforms = vocoder(filled.to(device), seeds=own + [0] * n_lacking)
        yield from waveforms[: len(own)].cpu()


def repeatable() -> AbstractContextManager[None]:
    """Lets a GPU take the same way each time: cuDNN would choose by its speed at the moment."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def write_sound(
    stem: str | Path,
    spectrogram: Tensor,
    waveform: Tensor,
    *,
    sample_rate: int,
    wav: WavSettings,
    info: Mapping[str, str],
) -> SoundFiles:
    """Writes `<stem>.wav` and `<stem>.png`.

    Args:
        stem: path without a suffix.
        spectrogram: (channels, n_mels, n_frames) in [-1, 1]; the picture shows all of it.
        waveform: (T,) or (channels, T).
        sample_rate: of the waveform, Hz.
        wav: what becomes of it before it is written.
        info: texts in the WAV, see `sound_info`.
    """
    path, picture = Path(f"{stem}.wav"), Path(f"{stem}.png")
    facts = wav.write(path, waveform, sample_rate, info=info)
    write_bytes(picture, to_png(spectrogram))
    return SoundFiles(path, picture, facts)


def sound_info(trained: TrainedGenerator, *, label: str, origin: str) -> dict[str, str]:
    """What a WAV says about where it comes from, see `save_wav`: title, genre, album, comment and program.

    Args:
        trained: what drew it.
        label: its class.
        origin: its class and seed, "kick, seed 7".
    """
    return {
        "INAM": origin,
        "IGNR": label,
        "IPRD": trained.checkpoint,
        "ICMT": f"{origin}, checkpoint {trained.checkpoint} after {trained.n_steps} steps",
        "ISFT": f"specgan {specgan.__version__}",
    }
