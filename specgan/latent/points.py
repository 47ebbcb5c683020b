"""Points of the latent space: what a sound is drawn from, and how it is called."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Point:
    """What the generator draws a sound from.

    Args:
        z: (latent_dim,), in the place of noise.
        embedding: (embedding_dim,), of its class, or between classes.
        label: the class; on the way from one to another both, "kick to snare".
        origin: what it is, for people: "variation of my_snare.wav, distance 0.3, seed 4".
        seed: of the vocoder's phases, and of what was drawn for the point.
        name: by which points that come of it call it, "my_snare.wav"; "": by its origin.
    """

    z: Tensor
    embedding: Tensor
    label: str
    origin: str
    seed: int = 0
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.origin


@dataclass(frozen=True, eq=False)
class Encoded:
    """The nearest sound to a recording that a generator was found to draw.

    Args:
        point: what it is drawn from.
        name: of the recording.
        probability: of its class, 0..1, as the encoder guessed it; None: the class was given.
        distance_db: mean absolute difference of its spectrogram from the recording's, decibels with level "db".
        part_s: the stretch of the recording that was used, start and end in seconds; a start below 0 stands for silence
            that was put before it.
        duration_s: of the recording, or of as much of it as was read.
        gain_db: that the recording was made louder by, because the generator's sounds are.
    """

    point: Point
    name: str
    probability: float | None
    distance_db: float
    part_s: tuple[float, float]
    duration_s: float
    gain_db: float

    def __str__(self) -> str:
        parts = [f"{self.name}: the nearest sound of {self.point.label} differs by {self.distance_db:.1f} dB"]
        if self.probability is not None:
            parts.append(f"its class was guessed, with a probability of {self.probability:.0%}; label= says another")
        start, end = self.part_s
        if start > 1e-3 or end < self.duration_s - 1e-3:
            parts.append(f"{max(start, 0):.2f} s to {end:.2f} s of {self.duration_s:.2f} s were used")
        if abs(self.gain_db) >= 0.5:
            change = "louder" if self.gain_db > 0 else "quieter"
            parts.append(f"made {abs(self.gain_db):.0f} dB {change}, as loud as sounds of this checkpoint")
        return "; ".join(parts) + "."
