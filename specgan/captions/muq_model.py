"""Loads MuQ-MuLan where muq itself cannot: from a folder, without network, with newer transformers."""

import contextlib
import inspect
import io
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from specgan.hub import fetch_file

_log = logging.getLogger(__name__)


def load_mulan(name: str) -> nn.Module:
    """Loads a MuQ-MuLan in evaluation mode, on the CPU.

    muq's own `from_pretrained` is not used: from a local folder it reads only model.safetensors, but the published
    weights are a pytorch_model.bin; it does not check the weights; and without network it waits at each file.

    Args:
        name: on the Hugging Face hub, or a folder.
    Raises:
        MissingWeightsError: a file is not on this machine and cannot be fetched.
        ValueError: the files are not those of a MuQ-MuLan.
        ImportError: muq is not installed.
    """
    try:
        from muq import MuQMuLan
    except ImportError as err:
        raise ImportError('captions by MuQ-MuLan need the package muq: pip install -e ".[captions]"') from err
    config_file = fetch_file(name, "config.json", how=_HOW)
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if not _PARTS.keys() <= config.keys():
        raise ValueError(f"{name} is not a MuQ-MuLan model: its config.json has no {' and '.join(_PARTS)}")
    for part, file_names in _PARTS.items():
        inside = config_file.parent / config[part]["name"]
        source = str(inside) if inside.is_dir() else config[part]["name"]
        for file_name in file_names:
            folder = str(fetch_file(source, file_name, how=_HOW).parent.absolute())
        if _KINDS[part] not in folder.lower():
            raise ValueError(
                f"{folder}: muq identifies models by their path; rename it so that it contains {_KINDS[part]!r}"
            )
        config[part]["name"] = folder
    weights = fetch_file(name, "model.safetensors", "pytorch_model.bin", how=_HOW)
    _log.warning("The weights of MuQ-MuLan (%s) are CC BY-NC 4.0: not for commercial use.", name)
    # the hub's loader prints a line for each folder
    with _random_state_kept(), _hidden_states_returned(), contextlib.redirect_stdout(io.StringIO()):
        mulan = MuQMuLan(config)
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    missing = mulan.load_state_dict(state, strict=False).missing_keys
    # keys under .model. were loaded with their part
    if lost := [key for key in missing if ".model." not in key]:
        raise ValueError(f"{weights} lacks {lost[0]} and {len(lost) - 1} more: not the weights of this config.json")
    return mulan.eval()


# The models that the config of a MuQ-MuLan names, and their files that muq needs. The file of MuQ-MuLan has the weights
# of both too, but muq loads these first.
_PARTS = {
    "audio_model": ("config.json", "model.safetensors"),
    "text_model": ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
}
_KINDS = {"audio_model": "muq", "text_model": "xlm-roberta"}

_HOW = """\
MuQ-MuLan-large takes 5.1 GB of disk: 2.6 GB itself, and the models that it is built on, MuQ-large-msd-iter (1.3 GB) and
xlm-roberta-base (1.1 GB). The first two are CC BY-NC 4.0 (not for commercial use), the last MIT. No account is needed.
With a network they are fetched at the first run, or beforehand by
  hf download OpenMuQ/MuQ-MuLan-large
  hf download OpenMuQ/MuQ-large-msd-iter config.json model.safetensors
  hf download xlm-roberta-base config.json model.safetensors tokenizer.json tokenizer_config.json
Or name a folder that holds them: captioner.model=FOLDER"""


@contextlib.contextmanager
def _hidden_states_returned() -> Iterator[None]:
    """Lets muq build on a Wav2Vec2-Conformer encoder that returns its hidden states, as it expects.

    Since transformers 5.16 the encoder alone no longer does (the whole model collects them by hooks), and reads an
    attention from its config that muq's EasyDict does not have. muq imports the class as it builds a model, so the
    class is replaced meanwhile. Outputs equal those of transformers 4.57, which always used eager attention.
    """
    from transformers.modeling_outputs import BaseModelOutput
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as modeling

    original: Any = modeling.Wav2Vec2ConformerEncoder

    class Encoder(original):
        def __init__(self, config):
            config._attn_implementation = "eager"
            super().__init__(config)

        def forward(self, hidden_states, attention_mask=None, **_):
            seen = []  # what goes into each layer
            hooks = [layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for layer in self.layers]
            try:
                last = super().forward(hidden_states, attention_mask=attention_mask).last_hidden_state
            finally:
                for hook in hooks:
                    hook.remove()
            return BaseModelOutput(last_hidden_state=last, hidden_states=(*seen, last))

    if "output_hidden_states" in inspect.signature(original.forward).parameters:  # before 5.16
        yield
        return
    modeling.Wav2Vec2ConformerEncoder = Encoder
    try:
        yield
    finally:
        modeling.Wav2Vec2ConformerEncoder = original


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Undoes what muq does to the global random states: it seeds them as it builds a model."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
