"""The latent space of a checkpoint: from a recording to its nearest sound, and on from there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from specgan.latent.arcs import Arc, require_distance, typical_distance
from specgan.latent.encoder import Encoder
from specgan.latent.kept import load_or_train_encoder
from specgan.latent.points import Encoded, Point
from specgan.latent.recording import Recording, Typical, read_recording
from specgan.latent.search import N_STEPS, differences, nearest
from specgan.models.generators import draw, noise, require_embedding, slerp
from specgan.models.trained import TrainedGenerator, find_class

_MOST_STARTS = 4  # of the search, each for another place of the recording


class LatentSpace:
    """A checkpoint's generator and its encoder.

    Args:
        trained: the generator.
        encoder: of this generator, which recordings need; None: there is none yet.
    Raises:
        ValueError: the generator has no `from_embedding`.
    """

    def __init__(self, trained: TrainedGenerator, encoder: Encoder | None = None) -> None:
        require_embedding(trained.network, "going through the latent space")
        self.trained, self.encoder = trained, encoder

    @classmethod
    def open(cls, ckpt_path: str | Path, *, network: str | None = None) -> "LatentSpace":
        """Reads a checkpoint of train.py and its encoder, which is trained first if there is none yet (two minutes).

        Args:
            ckpt_path, network: as of `TrainedGenerator.load`.
        Raises:
            FileNotFoundError, ValueError: as `TrainedGenerator.load` and `load_or_train_encoder`.
        """
        trained = TrainedGenerator.load(ckpt_path, network=network)
        return cls(trained, load_or_train_encoder(trained, ckpt_path))

    @cached_property
    def typical(self) -> Typical:
        """Where the generator's sounds begin and how loud they are."""
        return Typical.of(self.trained)

    def draw(self, points: Sequence[Point]) -> Tensor:
        """Draws the spectrograms (B, channels, n_mels, n_frames) in [-1, 1] of points, each as it would be alone."""
        z, embedding = (torch.stack([getattr(point, name) for point in points]) for name in ("z", "embedding"))
        return draw(self.trained.network, z, embedding)

    def encode(self, path: str | Path, *, label: str | None = None, n_steps: int = N_STEPS) -> Encoded:
        """Finds the sound of the generator that is nearest to a recording.

        Args:
            path: a sound file of any kind. Of a longer one the part is taken that begins where it starts to sound.
            label: its class; None: as the encoder guesses.
            n_steps: of the search, see `search.nearest`.
        Raises:
            FileNotFoundError, AudioError: no such file, or nothing that can be read as sound.
            ValueError: it is silent, or `label` is no class.
        """
        recording = read_recording(path, self.trained, self.typical)
        return self.encode_recording(recording, label=label, n_steps=n_steps)

    @torch.no_grad()
    def encode_recording(self, recording: Recording, *, label: str | None = None, n_steps: int = N_STEPS) -> Encoded:
        """As `encode`, of a recording that was read."""
        if self.encoder is None:
            raise ValueError(f"no encoder, so {recording.name} cannot be found; see load_or_train_encoder")
        targets = recording.spectrograms
        features = self.encoder.features(targets)
        probabilities = self.encoder.logits(features).softmax(dim=1).mean(dim=0)
        index = int(probabilities.argmax()) if label is None else self._index(label)
        embedding = self._embedding(index)
        guesses = self.encoder.to_noise(features, embedding.expand(len(targets), -1))
        z, best = self._search(targets, guesses, embedding, n_steps)
        name = self.trained.class_names[index]
        level_range = self.trained.level_range
        distance = float(differences(draw(self.trained.network, z[None], embedding[None]), targets[best : best + 1]))
        start = recording.starts_s[best]
        end = start + self.trained.params.n_samples / self.trained.params.sample_rate
        return Encoded(
            point=Point(z, embedding, name, f"nearest to {recording.name}", name=recording.name),
            name=recording.name,
            probability=float(probabilities[index]) if label is None else None,
            distance_db=distance * (level_range.high - level_range.low) / 2,
            part_s=(start, min(end, recording.duration_s)),
            duration_s=recording.duration_s,
            gain_db=recording.gain_db,
        )

    def _search(self, targets: Tensor, guesses: Tensor, embedding: Tensor, n_steps: int) -> tuple[Tensor, int]:
        """The nearest z (latent_dim,) of all targets, and the target's index; from the encoder's guess for each."""
        network, embedding = self.trained.network, embedding.expand(len(targets), -1)
        off = differences(draw(network, guesses, embedding), targets)
        likely = off.topk(min(_MOST_STARTS, len(targets)), largest=False).indices
        targets, embedding = targets[likely], embedding[likely]
        z = nearest(network, targets, guesses[likely], embedding, n_steps=n_steps)
        best = int(differences(draw(network, z, embedding), targets).argmin())
        return z[best], int(likely[best])

    def vary(self, start: Point, *, distance: float, seeds: Sequence[int]) -> list[Point]:
        """Points around one, in its class: with each seed in another direction.

        Args:
            start: what is varied.
            distance: how far what is heard is from `start`: 0 is `start` itself, 1 any sound of the class. Half of it
                is half the difference of the spectrograms, whatever the way there is like.
            seeds: of the directions. At distance 1 each gives the sound that `TrainedGenerator.sample` draws, or one
                farther in its direction, if that one is nearer than most.
        Raises:
            ValueError: `distance` is not in 0..1.
        """
        require_distance(distance)
        network = self.trained.network
        whole = typical_distance(network, start)
        points = []
        for seed in seeds:
            z = Arc.between(network, start, noise(network, seed)).at(distance, typical=whole)
            origin = f"variation of {start}, distance {distance:g}, seed {seed}"
            points.append(replace(start, z=z, origin=origin, seed=seed, name=""))
        return points

    def morph(self, start: Point, end: Point, *, n_positions: int) -> list[Point]:
        """Points on the way from one to another, both included, evenly spaced on the arc of z.

        The noise moves along an arc, because all noise vectors have about the same length and the network has never
        seen shorter ones; the embedding moves along a line. Each point has the seed, and so the vocoder's phases, of
        the nearer end.

        Args:
            start, end: the two ends, of any classes.
            n_positions: at least 2.
        Raises:
            ValueError: `n_positions` < 2.
        Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; for noise White, "Sampling
            generative networks", 2016.
        """
        if n_positions < 2:
            raise ValueError(f"n_positions is {n_positions}; at least 2, the two ends")
        label = start.label if start.label == end.label else f"{start.label} to {end.label}"
        position = torch.linspace(0, 1, n_positions)[:, None]
        z = slerp(start.z, end.z, position)
        embedding = (1 - position) * start.embedding + position * end.embedding
        nearer = [(start, end)[2 * i >= n_positions] for i in range(n_positions)]
        return [
            Point(z[i], embedding[i], label, f"morph of {start} to {end}, {i + 1} of {n_positions}", nearer[i].seed)
            for i in range(n_positions)
        ]

    def _index(self, label: str) -> int:
        name = find_class(label, self.trained.class_names)
        if name is None:
            raise ValueError(
                f"label is {label}: not a class of this checkpoint; one of: {', '.join(self.trained.class_names)}"
            )
        return self.trained.class_names.index(name)

    def _embedding(self, index: int) -> Tensor:
        return self.trained.network.embedding(torch.tensor(index)).detach()
