"""Captions by Qwen2-Audio, a language model that takes audio: free sentences on any sound, slowly."""

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specgan.captions.caption import SILENCE, Caption, is_silent
from specgan.hub import MissingWeightsError, fetch_folder, first_line

log = logging.getLogger(__name__)

_OFFICIAL = "Qwen/Qwen2-Audio-7B-Instruct"
_OFFICIAL_PARAMETERS = 8.4e9
_SAMPLE_RATE = 16000  # Hz, of the model's own feature extractor
_MAX_SAMPLES = 30 * _SAMPLE_RATE  # the feature extractor cuts off longer sounds without a warning
_MIN_SAMPLES = _SAMPLE_RATE // 10  # below 30 ms a sound gives the model no token, and below 0.1 s hardly one
_WORKING_MEMORY = 0.05  # of the weights' size, for each sound of a batch: its key-value cache and logits
_DTYPES = ("bfloat16", "float16", "float32")


class Qwen2AudioCaptioner:
    """Answers a prompt about each sound. The model is loaded at the first sound that is not silent.

    Decoding is greedy, so the same sound, prompt and machine give the same text. In float32 a sound gets the same text
    alone and in a batch; in bfloat16 rounding depends on the batch size, which sometimes changes a word.

    A sound of more than 30 s is described in equal pieces of at most 30 s, one after the other, without silent pieces.

    Args:
        model: name on huggingface.co, or a folder with the files of such a model.
        prompt: what the model is asked.
        max_new_tokens: longest answer, for each piece; longer ones are cut off. About 3 tokens for 2 words.
        batch_size: sounds at a time; each takes about 0.8 GB beside the weights.
        device: "auto" (the GPU if available, else the CPU) or a torch device.
        dtype: "bfloat16", "float16" or "float32", in which the model computes; float32 takes twice the memory.
    Raises:
        ValueError: an argument is out of range.
    Source: Y. Chu et al., "Qwen2-Audio Technical Report", 2024, https://arxiv.org/abs/2407.10759.
    """

    sample_rate = _SAMPLE_RATE

    def __init__(
        self,
        *,
        model: str = _OFFICIAL,
        prompt: str = "Describe this sound in one or two sentences: what is heard, its timbre and its mood.",
        max_new_tokens: int = 128,
        batch_size: int = 4,
        device: str = "auto",
        dtype: str = "bfloat16",
    ) -> None:
        if not prompt.strip():
            raise ValueError(f"prompt={prompt!r} is empty; say what the model should describe")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} is impossible; at least 1, e.g. 128 for two sentences")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is impossible; at least 1")
        if dtype not in _DTYPES:
            raise ValueError(f"dtype={dtype!r} is not supported; one of {', '.join(_DTYPES)}")
        self.model = str(model)
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self._loaded: tuple[Any, Any] | None = None
        self._has_warned_of_pieces = False

    def load(self) -> None:
        """Loads the model, unless it is loaded. Raises: as a call."""
        if self._loaded is None:
            self._loaded = _load(self.model, device=self.device, dtype=self.dtype, batch_size=self.batch_size)

    def __call__(self, waveforms: Sequence[Tensor]) -> list[Caption]:
        """Describes sounds.

        Args:
            waveforms: each (n_samples,), 16000 Hz, full scale 1.0, of any length.
        Returns:
            A caption for each, without tags.
        Raises:
            ValueError: a waveform is not one-dimensional, torch cannot use `device`, or `model` is of another kind.
            MissingWeightsError: the model's files are not on this machine and cannot be fetched.
            MemoryError: the model does not fit into the free memory.
            ModuleNotFoundError: transformers is not installed.
        """
        pieces = [self._audible_pieces(waveform) for waveform in waveforms]
        texts = iter(self._describe([piece for of_one in pieces for piece in of_one]))
        return [Caption(" ".join(next(texts) for _ in of_one) if of_one else SILENCE) for of_one in pieces]

    def _audible_pieces(self, waveform: Tensor) -> list[Tensor]:
        """Cuts a sound into equal pieces of at most 30 s, so that none is too short to describe."""
        if waveform.ndim != 1:
            raise ValueError(f"a waveform has shape {tuple(waveform.shape)}; pass one channel, (n_samples,)")
        if is_silent(waveform):
            return []
        pieces = waveform.detach().float().cpu().tensor_split(math.ceil(len(waveform) / _MAX_SAMPLES))
        if len(pieces) > 1 and not self._has_warned_of_pieces:
            self._has_warned_of_pieces = True
            log.warning(
                "a sound of %.0f s: Qwen2-Audio takes 30 s at once, so longer sounds are described piece by piece and"
                " the texts joined (this is logged once)",
                len(waveform) / _SAMPLE_RATE,
            )
        return [_padded(piece) for piece in pieces if not is_silent(piece)]

    def _describe(self, pieces: list[Tensor]) -> list[str]:
        texts = []
        for start in range(0, len(pieces), self.batch_size):
            texts += self._describe_batch(pieces[start : start + self.batch_size])
        return texts

    def _describe_batch(self, pieces: list[Tensor]) -> list[str]:
        self.load()
        processor, model = self._loaded
        question = [{"type": "audio", "audio_url": ""}, {"type": "text", "text": self.prompt}]
        chat = processor.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        inputs = processor(
            text=[chat] * len(pieces),
            audio=[piece.numpy() for piece in pieces],
            sampling_rate=_SAMPLE_RATE,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        answers = tokens[:, inputs["input_ids"].shape[1] :]  # the chat comes back in front of them
        return [" ".join(text.split()) for text in processor.batch_decode(answers, skip_special_tokens=True)]


def _padded(piece: Tensor) -> Tensor:
    return torch.nn.functional.pad(piece, (0, max(0, _MIN_SAMPLES - len(piece))))


def _load(name: str, *, device: str, dtype: str, batch_size: int) -> tuple[Any, Any]:
    """Returns the processor and the model, on the device. Checks come before each slow step."""
    try:
        from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError(
            f'Qwen2-Audio needs {err.name}, which is not installed; install it with: pip install -e ".[captions]"',
            name=err.name,
        ) from err
    torch_device = _device(device)
    torch_dtype = getattr(torch, dtype)
    scale = torch_dtype.itemsize * (1 + _WORKING_MEMORY * batch_size)
    if name == _OFFICIAL:  # before 16.8 GB are fetched
        _check_memory(name, _OFFICIAL_PARAMETERS * scale, torch_device)
    folder = fetch_folder(name, how=_how(name))
    try:
        _check_kind(name, folder)
        _check_memory(name, _n_parameters(folder) * scale, torch_device)
        processor = AutoProcessor.from_pretrained(folder)
        model, report = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=torch_dtype, output_loading_info=True
        )
    except OSError as err:
        raise MissingWeightsError(f"{folder} is not complete: {first_line(err)}.\n{_how(name)}") from None
    if report["missing_keys"]:  # transformers would use random numbers in their place
        raise MissingWeightsError(f"{folder} lacks the weights {sorted(report['missing_keys'])[:3]}.\n{_how(name)}")
    if processor.audio_token_id != model.config.audio_token_id:  # without its file transformers creates an empty one
        raise MissingWeightsError(f"the tokenizer in {folder} does not know {processor.audio_token}.\n{_how(name)}")
    processor.tokenizer.padding_side = "left"  # answers of a batch begin where the chats end: at the right
    return processor, model.to(torch_device).eval()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.ones(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        raise ValueError(f"device={name!r} cannot be used here ({first_line(err)}); auto, cpu or cuda") from err
    return torch.device(name)


def _how(name: str) -> str:
    facts = "It takes 16.8 GB of disk; its licence is Apache-2.0, and no account is needed.\n"
    return f"""\
{facts if name == _OFFICIAL else ""}With a network it is fetched at the first run, or beforehand by
  hf download {_OFFICIAL if Path(name).is_dir() else name}
For a machine without network add --local-dir FOLDER, copy the folder, and give captioner.model=FOLDER"""


def _check_kind(name: str, folder: Path) -> None:
    kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    if kind != "qwen2_audio":
        raise ValueError(f"model={name!r} is of type {kind!r}; use a model of type 'qwen2_audio', e.g. {_OFFICIAL}")


def _n_parameters(folder: Path) -> int:
    """Counts the parameters in the headers of the weight files, which takes no memory."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else ["model.safetensors"]
    n_parameters = 0
    for name in sorted(names):
        try:
            with safe_open(folder / name, framework="pt") as weights:
                n_parameters += sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        except SafetensorError as err:
            raise OSError(f"{name} cannot be read ({first_line(err)})") from err
    return n_parameters


def _check_memory(name: str, needed: float, device: torch.device) -> None:
    free = _free_memory(device)
    if free is not None and free < needed:
        place = "of the GPU's memory" if device.type == "cuda" else "of memory"
        raise MemoryError(
            f"model={name!r} needs {needed / 1e9:.1f} GB {place} for its weights and a batch, and {free / 1e9:.1f} GB"
            f" are free on {device}; use another device, a smaller batch_size (each sound takes 5 % of the weights),"
            " dtype=bfloat16, or another captioner"
        )


def _free_memory(device: torch.device) -> int | None:
    """Returns the free bytes on the device; None if the system does not report them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # Linux: its sysconf counts the file cache as used memory
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # macOS reports only the total
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
