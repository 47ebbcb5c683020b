"""How spectrograms are made of a recording."""

import math
from dataclasses import asdict, dataclass

from specgan.audio import DOWNMIXES
from specgan.spectrogram import SpectrogramParams

FORMATS = ("pt", "png", "both", "shards")
POOL_MODES = ("avg", "max")


@dataclass(frozen=True)
class Recipe:
    """How spectrograms are made of a recording.

    Args:
        params: of the spectrograms.
        mono: as many channels as `channels` says; False keeps those of the recording, (n_channels, n_bins, n_frames),
            which is not for training.
        downmix: how several channels become one: "mean", "left" or "max_energy", see audio.open_audio.
        channels: 1, tensors (n_bins, n_frames); or 2, left and right, (2, n_bins, n_frames), see audio.open_audio.
        peak: each recording is scaled to this peak, 0..1, which makes them equally loud and **drops how loud they
            were**; None keeps their level.
        time_pool: frames that become one, at least 1; the last one may stand for fewer.
        freq_pool: bins that become one, at least 1.
        pool_mode: "avg" or "max" of their **power**, before the level mapping: the mean of decibels would lose tones.
        format: "pt", "png" or "both", a file for each spectrogram; or "shards", a large file for thousands.
        grayscale: pictures have one grey channel instead of colours.
        cmap: of the pictures, any matplotlib colormap. Its first colour is silence (`params.floor_db`), its last a
            full-scale sine; with level "log1p" the lowest and highest value of the picture.
        image_scale: pixels a value in each direction, above 0.

    Raises:
        ValueError: an impossible setting.
    """

    params: SpectrogramParams
    mono: bool = True
    downmix: str = "mean"
    channels: int = 1
    peak: float | None = None
    time_pool: int = 1
    freq_pool: int = 1
    pool_mode: str = "avg"
    format: str = "pt"
    grayscale: bool = False
    cmap: str = "magma"
    image_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.peak is not None and not 0 < self.peak <= 1:
            raise ValueError(
                f"peak is {self.peak}; it must be above 0 and at most 1, or null to keep each clip's level"
            )
        for name, known in (("downmix", DOWNMIXES), ("pool_mode", POOL_MODES), ("format", FORMATS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; one of {', '.join(known)}")
        if self.channels not in (1, 2):
            raise ValueError(f"channels is {self.channels!r}; 1, or 2 for stereo")
        if self.channels == 2 and not self.mono:
            raise ValueError("channels is 2, and mono is False, which keeps those of each recording; mono true")
        if self.format == "shards" and not self.mono:
            raise ValueError(
                "format is 'shards', of which all clips have as many channels, and mono is False; mono true (with "
                "channels 1 or 2), or format pt"
            )
        for name, most in (("time_pool", self.params.n_frames), ("freq_pool", self.params.n_bins)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or (most is not None and value > most):
                raise ValueError(f"{name} is {value!r}; an integer from 1" + (f" to {most}" if most else ""))
        if self.params.n_frames and self.params.n_frames % self.time_pool:
            raise ValueError(
                f"time_pool is {self.time_pool}; n_frames ({self.params.n_frames}) must be a multiple of it"
            )
        if not 0 < self.image_scale < math.inf:
            raise ValueError(f"image_scale is {self.image_scale}; a number above 0")
        if self.makes_pictures and not self.grayscale:
            from specgan.pictures.figures import colormap  # matplotlib, which tensors need not

            colormap(self.cmap)

    @property
    def is_single(self) -> bool:
        """Whether each spectrogram has one channel."""
        return self.mono and self.channels == 1

    @property
    def makes_tensors(self) -> bool:
        return self.format in ("pt", "both")

    @property
    def makes_pictures(self) -> bool:
        return self.format in ("png", "both")

    def settings(self) -> dict[str, object]:
        """What the outputs depend on, by name, as plain values."""
        settings: dict[str, object] = {"spectrogram": asdict(self.params), **asdict(self)}
        del settings["params"]
        unused = [] if self.is_single else ["downmix"]
        unused += ["channels"] if self.channels == 1 else ["mono"]  # as folders from before there were channels say it
        unused += [] if self.time_pool * self.freq_pool > 1 else ["pool_mode"]
        unused += [] if self.makes_pictures else ["grayscale", "cmap", "image_scale"]
        unused += ["cmap"] if self.makes_pictures and self.grayscale else []
        return {name: value for name, value in settings.items() if name not in unused}
