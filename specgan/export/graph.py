"""A generator, what its levels mean and its vocoder, as one ONNX model."""

import json
import warnings
from collections.abc import Mapping
from io import BytesIO

import torch
from torch import Tensor, nn

from specgan.export.vocoding import graph_of
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import Spectrogram, denormalise

PRODUCER = "specgan"

_EXAMPLES = 2  # in the batch that is traced: PyTorch takes 1 for a fixed size


class SoundGraph(nn.Module):
    """Maps noise and a label to a spectrogram in levels, and to sound if the vocoder is a network.

    Args:
        trained: the generator.
        vocoder: for its spectrograms.
        embedded: take the embedding of a class, or of a point between classes, in place of the label.
    Raises:
        ValueError: a vocoder of one's own, see `vocoding.graph_of`.
    """

    def __init__(self, trained: TrainedGenerator, vocoder: nn.Module, *, embedded: bool = False) -> None:
        super().__init__()
        self.embedded = embedded
        self.network, self.params, self.level_range = trained.network, trained.params, trained.level_range
        self.transform = Spectrogram(trained.params)
        self.vocoder = graph_of(vocoder, trained.params.n_frames)

    @property
    def takes_noise(self) -> bool:
        return self.vocoder is not None and self.vocoder.takes_noise

    def forward(self, z: Tensor, condition: Tensor, noise: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """The spectrogram (B, channels, n_bins, n_frames) in levels; and the sound (B, channels, n_samples).

        Args:
            z: (B, latent_dim), from the standard normal distribution.
            condition: labels (B,) int64, or embeddings (B, embedding_dim) if `embedded`.
            noise: (B, n_frames, n_fft // 2 + 1), uniform in [0, 1), if the vocoder takes noise.
        """
        draw = self.network.from_embedding if self.embedded else self.network
        level = denormalise(draw(z, condition), self.level_range)
        if self.vocoder is None:
            return level
        power = self._power(level)
        return level, self.vocoder(power, noise) if self.takes_noise else self.vocoder(power)

    def _power(self, level: Tensor) -> Tensor:
        if self.params.level == "log1p":  # ONNX has no expm1; small powers beside the loudest are coarse in float32
            return (torch.exp(level) - 1).clamp_min(0)
        return self.transform.to_power(level)

    def examples(self) -> dict[str, Tensor]:
        """A batch of its inputs, by name."""
        p = self.params
        inputs = {"z": torch.zeros(_EXAMPLES, self.network.latent_dim)}
        labels = torch.zeros(_EXAMPLES, dtype=torch.int64)
        inputs |= {"embedding": self.network.embedding(labels)} if self.embedded else {"label": labels}
        if self.takes_noise:
            inputs["noise"] = torch.zeros(_EXAMPLES, p.n_frames, p.n_fft // 2 + 1)
        return inputs


@torch.no_grad()
def to_onnx(graph: SoundGraph, about: Mapping[str, object], *, opset: int) -> bytes:
    """The content of an ONNX file.

    Args:
        graph: what it computes, of batches of any size.
        about: its metadata; each value is written as JSON.
        opset: version of ONNX's operators.
    Raises:
        ImportError: the package onnx is not installed.
        ValueError: the network has operations that ONNX has not, or `opset` is impossible.
    """
    try:
        import onnx
    except ImportError as err:
        raise ImportError(f"an export needs one more package ({err}): pip install 'specgan[export]'") from err
    graph = graph.cpu().eval()
    inputs = graph.examples()
    outputs = ["spectrogram"] if graph.vocoder is None else ["spectrogram", "waveform"]
    content = BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dynamo=False is deprecated, and says so
            # dynamo=True takes ten times as long for the learned vocoder, and its optimizer loses what is added, if it
            # is as small as 1e-8.
            torch.onnx.export(
                graph,
                tuple(inputs.values()),
                content,
                dynamo=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
            )
    except (RuntimeError, TypeError) as err:  # torch.onnx.OnnxExporterError is a RuntimeError
        name, reason = type(graph.network).__name__, str(err).strip().splitlines()[0]
        raise ValueError(f"{name} cannot be written as ONNX with opset {opset}: {reason}") from err
    model = onnx.load_from_string(content.getvalue())
    model.producer_name = PRODUCER
    for name, value in about.items():
        model.metadata_props.add(key=name, value=json.dumps(value, ensure_ascii=False))
    return model.SerializeToString()
