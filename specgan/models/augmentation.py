"""Changes of spectrograms before the discriminator sees them, so that it cannot learn few clips by heart."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from specgan.models.draws import Draws

_OPERATIONS = ("time_shift", "band_shift", "hidden_bands", "hidden_frames", "gain")
_N_AMOUNTS = 7  # drawn for a spectrogram: of what is hidden, a place and a length each
_SOFTEST = 0.5  # by which a sound that is mixed into another is softer at most, in units of [-1, 1]
_SILENT_UP_TO = 0.25  # above silence: where the gain reaches its whole size
_FEW, _MANY = 30, 100  # clips of a class up to which the probability is highest, and from which on it is 0
_ENDLESS = 10_000  # steps over which the probability rises in a training without an end


class Augmentation:
    """Shifts, hides and scales parts of real and generated spectrograms alike.

    Each operation is applied to each spectrogram with one probability, which rises over the training along half a
    cosine. As long as it stays well below 1, the generator does not learn the changes: most of what the discriminator
    sees of each kind is unchanged. All operations can be differentiated twice, and all channels are changed alike.

    Args:
        probability: of each operation at the end of its rise, 0..1; 0: none is ever applied; None: chosen for each
            class from its number of clips, see `choose`.
        rise: share of the training, 0..1, over which the probability rises from 0.
        time_shift: earlier or later by up to this share of the frames; silence comes in.
        band_shift: lower or higher by up to this share of the bands; silence comes in. 0 where pitch is the label.
        hidden_bands: share of the bands that become silent at most, in one piece.
        hidden_frames: share of the frames that become silent at most, in one piece.
        gain: that is added to the level at most, or taken off, in units of [-1, 1]; silence stays silent.
        mixing: whether another sound of the class in the batch is mixed in, as loud or softer.
        seed: of all choices.

    Source: Karras et al., "Training generative adversarial networks with limited data", 2020. The rise: Huang et al.,
    "The GAN is dead; long live the GAN! A modern baseline GAN" (R3GAN), 2024. Hidden pieces: Park et al.,
    "SpecAugment", 2019.
    """

    def __init__(
        self,
        *,
        probability: float | None = None,
        rise: float = 0.5,
        time_shift: float = 0.125,
        band_shift: float = 0.04,
        hidden_bands: float = 0.125,
        hidden_frames: float = 0.125,
        gain: float = 0.1,
        mixing: bool = False,
        seed: int = 0,
    ) -> None:
        if probability is not None and not 0 <= probability <= 1:
            raise ValueError(f"augmentation.probability is {probability}; from 0 to 1, or null: chosen")
        shares = {"time_shift": time_shift, "band_shift": band_shift}
        shares |= {"hidden_bands": hidden_bands, "hidden_frames": hidden_frames, "rise": rise}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"augmentation.{name} is {value}; a share, from 0 to 1")
        if not 0 <= gain < _SILENT_UP_TO:  # else louder parts could become softer than soft ones
            raise ValueError(f"augmentation.gain is {gain}; at least 0 and below {_SILENT_UP_TO}")
        self.given = probability
        self.rise = rise
        self.time_shift, self.band_shift, self.gain = time_shift, band_shift, gain
        self.hidden_bands, self.hidden_frames = hidden_bands, hidden_frames
        self.mixing = mixing
        self.draws = Draws(seed)
        self.final = probability or 0.0  # the highest probability of a class at the end of its rise
        self.probability = 0.0  # the highest now
        self.shares: Tensor | None = None  # (n_classes,), of that of each class in the highest; None: all are alike

    def choose(self, n_clips: Sequence[float]) -> None:
        """Chooses the final probability of each class from its number of training clips, unless one was given."""
        finals = [probability_for(n) if self.given is None else self.given for n in n_clips]
        self._set_finals(max(finals), [final / max(finals) for final in finals] if max(finals) else None)

    def _set_finals(self, highest: float, shares: Sequence[float] | None) -> None:
        self.final = highest
        self.shares = None if shares is None or min(shares) == 1 else torch.tensor(shares)

    def __str__(self) -> str:
        if not self.final:
            return "none"
        names = ", ".join(name for name in (*_OPERATIONS, "mixing") if getattr(self, name))
        risen = f"{self.final:.2g} in {100 * self.rise:.0f} % of the training"
        if self.shares is not None:
            lowest = self.final * float(self.shares.min())
            risen += f" for the class of the fewest clips, to {lowest:.2g} for that of the most"
        return f"{names}; the probability of each rises to {risen}"

    def advance(self, over: float, n_steps: int) -> None:
        """Sets the probabilities.

        Args:
            over: share of the training, 0..1, that is done; always 0 in a training without an end.
            n_steps: that were done.
        """
        over = over or min(1.0, n_steps / _ENDLESS)
        risen = min(1.0, over / self.rise) if self.rise else 1.0
        self.probability = self.final * (1 - math.cos(math.pi * risen)) / 2

    def __call__(self, spectrogram: Tensor, labels: Tensor, *, n_processes: int = 1, rank: int = 0) -> Tensor:
        """Returns changed spectrograms (B, channels, n_mels, n_frames), each changed in its own way.

        Args:
            spectrogram: (B, channels, n_mels, n_frames) in [-1, 1].
            labels: (B,) int64.
            n_processes: that train together, with batches of one size; each has its part of the same draws.
            rank: of this process among them.
        """
        if not self.final:
            return spectrogram
        draw = partial(
            self.draws.uniform, len(spectrogram), device=spectrogram.device, n_processes=n_processes, rank=rank
        )
        probability = self._probability_of(labels)
        changed = self._changed(spectrogram, draw(len(_OPERATIONS) + _N_AMOUNTS), probability)
        return self._mixed(changed, labels, draw(3), probability) if self.mixing else changed

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a training goes on with the same draws."""
        shares = None if self.shares is None else self.shares.tolist()
        return {"final": self.final, "shares": shares, "random_state": self.draws.state()}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Takes over what a checkpoint kept; None: it is from before there was augmentation, so none is chosen now."""
        if self.given is None:
            self._set_finals(state["final"] if state else 0.0, state.get("shares") if state else None)
        if state:
            self.draws.go_on_from(state["random_state"])

    def _probability_of(self, labels: Tensor) -> Tensor:
        """The probability now for each of the labels, (B, 1), or for all of them, (1, 1)."""
        if self.shares is None:
            return torch.full((1, 1), self.probability, device=labels.device)
        self.shares = self.shares.to(labels.device)
        return self.probability * self.shares[labels].unsqueeze(1)

    def _changed(self, spectrogram: Tensor, drawn: Tensor, probability: Tensor) -> Tensor:
        """Applies what was drawn, (B, operations + amounts), uniform in 0..1, with a probability (B or 1, 1)."""
        *_, n_mels, n_frames = spectrogram.shape
        decisions, amounts = drawn.split([len(_OPERATIONS), _N_AMOUNTS], dim=1)
        later, higher, bands, frames, louder = (decisions < probability).unsqueeze(2).unbind(1)
        right, up, band, n_bands, frame, n_hidden, loudness = amounts.unsqueeze(2).unbind(1)
        # (B, n) each: where every row and column comes from, and whether it is silent instead
        rows, silent_rows = _moved(n_mels, self.band_shift, up, higher)
        columns, silent_columns = _moved(n_frames, self.time_shift, right, later)
        silent_rows |= _hidden(n_mels, self.hidden_bands, band, n_bands, bands)
        silent_columns |= _hidden(n_frames, self.hidden_frames, frame, n_hidden, frames)
        places = (rows.unsqueeze(2) * n_frames + columns.unsqueeze(1)).flatten(1).unsqueeze(1)
        flat = spectrogram.flatten(2)
        moved = flat.gather(2, places.expand(-1, flat.shape[1], -1)).view_as(spectrogram)
        is_silent = silent_rows.unsqueeze(2) | silent_columns.unsqueeze(1)
        moved = moved.masked_fill(is_silent.unsqueeze(1), -1.0)
        gain = (self.gain * (2 * loudness - 1) * louder).to(moved.dtype).view(-1, 1, 1, 1)
        return moved.addcmul(gain, heard(moved))

    def _mixed(self, spectrogram: Tensor, labels: Tensor, drawn: Tensor, probability: Tensor) -> Tensor:
        """Puts another sound of the class into each for which that was drawn, (B, 3): the louder value counts."""
        happens, which, softer = drawn.to(spectrogram.dtype).unbind(1)
        others = (labels.unsqueeze(1) == labels).fill_diagonal_(False).cumsum(dim=1)  # how many so far in the row
        n_others = others[:, -1]
        other = (others > (which * n_others).floor().unsqueeze(1)).int().argmax(dim=1)  # the first of these
        is_mixed = ((happens < probability[:, 0]) & (n_others > 0)).view(-1, 1, 1, 1)
        added = spectrogram[other] - _SOFTEST * softer.view(-1, 1, 1, 1)
        return torch.where(is_mixed, torch.maximum(spectrogram, added), spectrogram)


def probability_for(n_clips: float) -> float:
    """The final probability that suits a number of training clips of a class. Measured, see docs/experiments.md."""
    return 0.5 * min(1.0, max(0.0, math.log(_MANY / max(n_clips, 1)) / math.log(_MANY / _FEW)))


def heard(spectrogram: Tensor) -> Tensor:
    """Maps values in [-1, 1] to how far they are from silence: 0 to 1, which a quarter above it reaches."""
    return (spectrogram / _SILENT_UP_TO + 1 / _SILENT_UP_TO).clamp_max(1)


def _moved(n: int, share: float, amount: Tensor, happens: Tensor) -> tuple[Tensor, Tensor]:
    """For each of `n` places where its value comes from, and whether from outside: (B, n) each. Shifts both ways."""
    steps = ((2 * amount - 1) * round(share * n)).round().long() * happens
    source = torch.arange(n, device=amount.device) - steps
    return source.clamp(0, n - 1), (source < 0) | (source >= n)


def _hidden(n: int, share: float, place: Tensor, amount: Tensor, happens: Tensor) -> Tensor:
    """Whether each of `n` places is hidden, (B, n): a piece of up to `share` of them."""
    length = (amount * round(share * n)).ceil()
    first = (place * (n - length + 1)).floor()
    index = torch.arange(n, device=amount.device)
    return (index >= first) & (index < first + length) & happens
