"""Spectrogram -> waveform by Vocos, a network that was trained on speech and other sounds (optional package vocos)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from specgan.hub import fetch_file
from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.vocoders.mel_inversion import MelInversion
from specgan.vocoders.vocoder import Vocoder, edge_fade

CONFIG_NAME, WEIGHTS_NAME = "config.yaml", "pytorch_model.bin"

LOWEST_MAGNITUDE = 1e-7  # magnitude, below which Vocos' features do not go
_HOW = """\
vocos-mel-24khz takes 54 MB of disk; its licence is MIT, and no account is needed. With network, it is fetched at
the first run, or beforehand by
  hf download charactr/vocos-mel-24khz
For a machine without network add --local-dir FOLDER, copy the folder, and give vocoder.model=FOLDER"""


class Vocos(Vocoder):
    """Turns normalised spectrograms into sound by a Vocos model for mel spectrograms.

    Vocos takes the logarithm of mel bands of magnitude; ours are of power. The one follows from the other only with the
    power of each FFT bin, which mel inversion estimates as even as possible: on drums and recorded samples the features
    are 0.55 to 0.8 dB too high on average, with an RMS error of 1.2 to 2.1 dB.

    Args:
        params: settings of the spectrograms, which must be those of the model (`spectrogram=vocos_24k`).
        level_range: the levels of their -1 and 1.
        model: name on the Hugging Face hub, or a folder that holds config.yaml and pytorch_model.bin.
        n_inversion_iter: updates of the mel inversion.
    Raises:
        ImportError: the package vocos is not installed.
        MissingWeightsError: the model is not on this machine and cannot be fetched.
        ValueError: spectrograms of other settings than the model's, or not a Vocos for mel spectrograms.

    Source: Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for high-quality
    audio synthesis", ICLR 2024; networks of its package, vocos.
    """

    def __init__(
        self,
        params: SpectrogramParams,
        level_range: LevelRange,
        *,
        model: str = "charactr/vocos-mel-24khz",
        n_inversion_iter: int = 30,
    ) -> None:
        super().__init__(params, level_range)
        parts = _import_parts()
        config_path, weights_path = (fetch_file(str(model), name, how=_HOW) for name in (CONFIG_NAME, WEIGHTS_NAME))
        config = _read_config(config_path, parts)
        _require_fit(params, config, config_path)
        self.inversion = MelInversion(params, n_iter=n_inversion_iter)
        with torch.random.fork_rng(devices=[]):  # its first weights are random: the global state stays
            self.backbone, self.head = (
                parts[config[name]["class_path"]](**config[name]["init_args"]) for name in ("backbone", "head")
            )
        _load_weights(self, weights_path)
        self.requires_grad_(False).eval()

    def waveform(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, n_mels, n_frames) >= 0 to waveforms (B, n_frames * hop_length); nothing is random."""
        # Frames are centred on every hop_length-th sample. Vocos has one more, on the end.
        features = F.pad(self.features(power), (0, 1), mode="replicate")
        waveform = self.head(self.backbone(features))
        return waveform * edge_fade(waveform.shape[-1], self.params.sample_rate).to(waveform)

    def features(self, power: Tensor) -> Tensor:
        """Maps power (B, n_mels, n_frames) to what Vocos takes: the natural logarithm of mel bands of magnitude."""
        return (self.inversion.filters @ self.inversion(power).sqrt()).clamp_min(LOWEST_MAGNITUDE).log()

    def train(self, mode: bool = True) -> "Vocos":
        return super().train(False)  # never trained, also not as a part of another module


def _import_parts() -> dict[str, type[nn.Module]]:
    """The classes that a config may name. Vocos' own loader takes any class of any module, so it is not used."""
    try:
        from vocos.heads import ISTFTHead
        from vocos.models import VocosBackbone
    except ImportError as err:
        raise ImportError(f'vocoder=vocos needs the package vocos: pip install -e ".[vocos]" ({err})') from err
    return {"vocos.models.VocosBackbone": VocosBackbone, "vocos.heads.ISTFTHead": ISTFTHead}


def _read_config(path: Path, parts: dict[str, type[nn.Module]]) -> dict[str, Any]:
    """Reads which networks with which settings a model has."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {"feature_extractor": ["vocos.feature_extractors.MelSpectrogramFeatures"]}
    known |= {name: [path for path in parts if f".{module}." in path] for name, module in _MODULES.items()}
    for name, class_paths in known.items():
        section = config.get(name) if isinstance(config, dict) else None
        found = section.get("class_path") if isinstance(section, dict) else None
        if found not in class_paths or not isinstance(section.get("init_args"), dict):
            raise ValueError(
                f"{path}: {name} is {found}, not {class_paths[0]} with its init_args; "
                "take a Vocos for mel spectrograms, e.g. charactr/vocos-mel-24khz"
            )
    return config


_MODULES = {"backbone": "models", "head": "heads"}


def _require_fit(params: SpectrogramParams, config: dict[str, Any], path: Path) -> None:
    """Raises ValueError unless the spectrograms are what the model was trained on."""
    of_model = config["feature_extractor"]["init_args"]
    if of_model.get("padding", "center") != "center" or config["head"]["init_args"].get("padding") != "center":
        raise ValueError(f"{path}: its frames are not centred (padding is not center), which is not supported")
    n_fft = of_model.get("n_fft", 1024)
    sample_rate = of_model.get("sample_rate", 24000)
    # the last three are torchaudio's defaults, on which Vocos relies
    wanted = {
        "kind": "mel",
        "sample_rate": sample_rate,
        "n_fft": n_fft,
        "win_length": n_fft,
        "hop_length": of_model.get("hop_length", 256),
        "n_mels": of_model.get("n_mels", 100),
        "f_min": 0.0,
        "mel_scale": "htk",
        "norm": None,
    }
    ours = {key: getattr(params, key) for key in wanted}
    wrong = [f"{key} is {ours[key]}, not {value}" for key, value in wanted.items() if ours[key] != value]
    if params.upper_hz != sample_rate / 2:
        wrong.append(f"f_max is {params.f_max}, not {sample_rate // 2} or null")
    if wrong:
        raise ValueError(
            f"these spectrograms are not what this Vocos model was trained on: {'; '.join(wrong)}. "
            "Train with spectrogram=vocos_24k, or use vocoder=griffin_lim"
        )


def _load_weights(vocos: Vocos, path: Path) -> None:
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        for name in _MODULES:
            part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            getattr(vocos, name).load_state_dict(part)
    except RuntimeError as err:
        raise ValueError(f"{path} does not hold the weights of the {CONFIG_NAME} beside it: {err}") from err
