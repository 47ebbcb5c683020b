"""The encoder of the service's checkpoint: trained in a process of its own when the first sound is sent."""

import asyncio
import logging
import pickle
from functools import partial
from pathlib import Path

from specgan.latent.kept import load_encoder, load_or_train_encoder, save_encoder
from specgan.models.trained import TrainedGenerator
from specgan.server.errors import RefusedError
from specgan.server.sounds import SoundGenerator
from specgan.server.workers import run_limited

log = logging.getLogger(__name__)

_MOST_S, _MOST_MB = 3600, 16384  # of a training: far beyond what it takes
_AGAIN_S = 5  # after which a client asks again

_BEFOREHAND = "before the service starts: python train.py stage=encoder ckpt_path=<checkpoint>"


class EncoderTraining:
    """Trains the encoder once somebody needs it; meanwhile the service goes on with all else.

    Args:
        sounds: whose encoder it is.
        folder: for the encoder, if it cannot be kept beside the checkpoint.
    """

    def __init__(self, sounds: SoundGenerator, folder: Path) -> None:
        self._sounds, self._path = sounds, folder / "encoder.safetensors"
        self._task: asyncio.Task[None] | None = None

    async def require(self) -> None:
        """Returns if there is an encoder.

        Raises:
            RefusedError: 503 while it is trained, which the first such call begins; 500 if that failed.
        """
        if self._sounds.has_encoder:
            return
        if self._task is not None and self._task.done() and self._task.exception() is not None:
            log.error("the encoder cannot be trained: %s", self._task.exception())
            self._task = None  # the next request tries again
            message = f"the encoder of this checkpoint could not be trained, the service's log says why; {_BEFOREHAND}"
            raise RefusedError(500, "no_encoder", message)
        if self._task is None:
            self._task = asyncio.create_task(self._train())
        message = "the encoder of this checkpoint is being trained, once: about two minutes; ask again. To do it "
        headers = {"Retry-After": str(_AGAIN_S)}
        raise RefusedError(503, "encoder_training", message + _BEFOREHAND, headers=headers)

    async def _train(self) -> None:
        trained = self._sounds.trained
        log.info("training the encoder of the checkpoint, once: about two minutes")
        train = partial(train_into, self._path, pickle.dumps(trained), self._sounds.ckpt_path)
        await asyncio.to_thread(run_limited, train, timeout_s=_MOST_S, max_memory_mb=_MOST_MB)
        self._sounds.space.encoder = load_encoder(trained, self._path)
        self._path.unlink()
        log.info("the encoder is trained")


def train_into(path: Path, trained: bytes, ckpt_path: str | Path) -> str:
    """Trains an encoder beside its checkpoint, if that folder can be written to, and in any case into `path`.

    Args:
        path: is written.
        trained: the generator, pickled: its file may be another one by now, and tensors would go through shared
            memory, which may be small.
        ckpt_path: it was read from.
    """
    generator: TrainedGenerator = pickle.loads(trained)
    save_encoder(load_or_train_encoder(generator, ckpt_path), generator, path)
    return ""
