"""Captions of the words that MuQ-MuLan finds nearest to a sound.

MuQ-MuLan is a model that embeds music and text in one space (Zhu et al., "MuQ: Self-Supervised Music Representation
Learning with Mel Residual Vector Quantization", arXiv 2501.01108).
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specgan.captions.caption import SILENCE, Caption, is_silent
from specgan.captions.muq_model import load_mulan
from specgan.captions.vocabulary import GROUPS, clash, words
from specgan.files import atomic_path

UNKNOWN = "A sound."  # if no word fits: not even that it is music is certain

# What the score of a word must exceed: its cosine similarity less the mean of its group. Not calibrated on real sounds.
THRESHOLDS = {"mood": 0.1, "genre": 0.1, "instrument": 0.1, "character": 0.1}
MOST = {"mood": 1, "genre": 1, "instrument": 2, "character": 2}  # words of a group in one caption
# After the example of muq's own README, "classical genres, hopeful mood, piano."
PROMPTS = {"mood": "{} mood", "genre": "{} genre", "instrument": "{}", "character": "{}"}

_N_TAGS = 5  # best words of a group in the tags, whether they are in the text or not
_log = logging.getLogger(__name__)


class MuQCaptioner:
    """Writes the words that fit: `A Dark Rock track featuring Electric Guitar. Characterized as heavy.`

    The model is loaded at the first call. Until then the object is small and can be pickled.

    Args:
        model: name on the Hugging Face hub, or a folder that holds the same files. The models that its config.json
            names (a MuQ and an XLM-RoBERTa) are looked for in that folder first, so a copy can contain them.
        thresholds: by group, the score that a word must exceed to be in the text; other groups keep `THRESHOLDS`.
        most: by group, the most words in the text; other groups keep `MOST`.
        prompts: by group, the text that is embedded for a word, `{}` being the word in lower case; other groups keep
            `PROMPTS`.
        batch_size: sounds in a call, and clips of 10 s that the model takes at a time.
        device: of torch, or auto: CUDA if available, else the CPU.
        autocast: compute in bfloat16 on CUDA. The model does not run in half precision throughout.
        cache_dir: folder for the embeddings of the words; None: specgan in $XDG_CACHE_HOME or ~/.cache.
    Raises:
        ValueError: an unknown group, a prompt without `{}`, `batch_size` below 1.
    """

    sample_rate = 24_000

    def __init__(
        self,
        *,
        model: str = "OpenMuQ/MuQ-MuLan-large",
        thresholds: Mapping[str, float] = THRESHOLDS,
        most: Mapping[str, int] = MOST,
        prompts: Mapping[str, str] = PROMPTS,
        batch_size: int = 8,
        device: str = "auto",
        autocast: bool = True,
        cache_dir: str | Path | None = None,
    ):
        for name, by_group in (("thresholds", thresholds), ("most", most), ("prompts", prompts)):
            if unknown := set(by_group) - set(GROUPS):
                raise ValueError(f"{name} has {sorted(unknown)}; the groups of words are {', '.join(GROUPS)}")
        if bad := [prompt for prompt in prompts.values() if "{}" not in prompt]:
            raise ValueError(f"prompts: {bad[0]!r} has no {{}} in place of the word")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1")
        self.model = str(model)
        self.thresholds = {**THRESHOLDS, **thresholds}
        self.most = {**MOST, **most}
        self.prompts = {**PROMPTS, **prompts}
        self.batch_size = batch_size
        self.device = device
        self.autocast = autocast
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._mulan: nn.Module | None = None
        self._word_embeddings: dict[str, Tensor] = {}

    def __call__(self, waveforms: Sequence[Tensor]) -> list[Caption]:
        """Captions sounds (n_samples,) at 24 kHz; tags are the best words' scores by group, none for silence.

        Raises:
            ValueError: a sound is not one-dimensional, or not finite.
            MissingWeightsError: the model is not on this machine and cannot be fetched.
            ImportError: muq is not installed.
        """
        for n, waveform in enumerate(waveforms):
            if waveform.ndim != 1:
                raise ValueError(f"waveform {n} has shape {tuple(waveform.shape)}; pass one channel, (n_samples,)")
            if not waveform.isfinite().all():
                raise ValueError(f"waveform {n} holds NaN or infinite samples; decode the sound again")
        captions = [Caption(SILENCE)] * len(waveforms)
        audible = [n for n, waveform in enumerate(waveforms) if not is_silent(waveform)]
        if audible:
            for n, embedding in zip(audible, self.embed([waveforms[n] for n in audible]), strict=True):
                captions[n] = self._caption(embedding)
        return captions

    @torch.no_grad()
    def embed(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Embeds sounds as the mean over their clips of 10 s, scaled to unit length.

        Args:
            waveforms: at least one, each (n_samples,) at 24 kHz, of one sample or more. The last clip is filled up with
                the beginning of the sound, repeated if needed.
        Returns:
            (len(waveforms), dim) float32 on the CPU, rows of unit length.
        """
        self.load()
        mulan = self._mulan
        clips = [split_clips(waveform.float(), mulan.sr * mulan.clip_secs) for waveform in waveforms]
        device = next(mulan.parameters()).device
        embeddings = []
        with torch.autocast("cuda", torch.bfloat16, enabled=self.autocast and device.type == "cuda"):
            for batch in torch.cat(clips).split(self.batch_size):
                embeddings.append(mulan.mulan_module.get_audio_latents(batch.to(device)).float().cpu())
        by_sound = torch.cat(embeddings).split([len(of_one) for of_one in clips])
        # muq averages too, and leaves the mean shorter than 1: long sounds would score lower than short ones
        return F.normalize(torch.stack([of_one.mean(0) for of_one in by_sound]), dim=-1)

    def _caption(self, embedding: Tensor) -> Caption:
        scores = {
            group: dict(zip(words(group), score(embeddings @ embedding).tolist(), strict=True))
            for group, embeddings in self._word_embeddings.items()
        }
        tags = {group: dict(_best_first(of_group)[:_N_TAGS]) for group, of_group in scores.items()}
        return Caption(
            describe(scores, thresholds=self.thresholds, most=self.most),
            {group: {word: round(value, 4) for word, value in best.items()} for group, best in tags.items()},
        )

    def load(self) -> None:
        """Loads the model and embeds the words, unless that is done. Raises: as a call."""
        if self._mulan is None:
            device = self.device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            mulan = load_mulan(self.model).to(device)
            self._word_embeddings = self._embed_words(mulan)
            self._mulan = mulan

    @torch.no_grad()
    def _embed_words(self, mulan: nn.Module) -> dict[str, Tensor]:
        """Embeds all words, or reads their embeddings from the cache; by group, (n_words, dim) on the CPU."""
        texts = {group: [self.prompts[group].replace("{}", word.lower()) for word in words(group)] for group in GROUPS}
        flat = [text for of_group in texts.values() for text in of_group]
        key = hashlib.sha256(json.dumps([flat, _fingerprint(mulan)]).encode()).hexdigest()[:32]
        path = self.cache_dir / f"muq-{key}.npy"
        embeddings = _read_cache(path, shape=(len(flat), mulan.mulan_module.dim_latent))
        if embeddings is None:
            # one at a time: muq does not mask the padding of a batch, so longer texts would change shorter ones
            embeddings = torch.cat([mulan(texts=[text]).float().cpu() for text in flat])
            _write_cache(path, embeddings)
        return dict(zip(texts, embeddings.split([len(of_group) for of_group in texts.values()]), strict=True))


def split_clips(waveform: Tensor, n_samples: int) -> Tensor:
    """Cuts (n,) into clips (n_clips, n_samples), the last one filled up from the beginning, repeated if needed.

    muq does the same with sounds of 5 s and more; it only doubles shorter ones, which here become full clips.
    """
    n_clips = math.ceil(len(waveform) / n_samples)
    n_repeats = math.ceil(n_clips * n_samples / len(waveform))
    return waveform.repeat(n_repeats)[: n_clips * n_samples].view(n_clips, n_samples)


def score(similarities: Tensor) -> Tensor:
    """Subtracts the mean of a group from its cosine similarities (n_words,): how much better each word fits.

    Near 0 for all words if the group does not apply to a sound, whatever the level of the similarities.
    """
    return similarities - similarities.mean()


def describe(
    scores: Mapping[str, Mapping[str, float]],
    *,
    thresholds: Mapping[str, float] = THRESHOLDS,
    most: Mapping[str, int] = MOST,
) -> str:
    """Writes the sentences of a caption, of the words that fit.

    Args:
        scores: word to score by group (mood, genre, instrument, character).
        thresholds: by group, what a score must exceed.
        most: by group, how many words at most. A word that clashes with a better one of its group (opposites, Guitar
            beside Electric Guitar) is left out.
    Returns:
        "A Dark Rock track featuring Electric Guitar. Characterized as heavy." or less; `UNKNOWN` if nothing fits.
    """
    said: dict[str, list[str]] = {group: [] for group in GROUPS}
    for group, chosen in said.items():
        for word, value in _best_first(scores.get(group, {})):
            if value <= thresholds[group] or len(chosen) >= most[group]:
                break
            if not any(clash(word, other) for other in chosen):
                chosen.append(word)
    if not any(said.values()):
        return UNKNOWN
    phrase = " ".join([*said["mood"], *said["genre"], "track"])
    text = f"{_article(phrase)} {phrase}"
    if said["instrument"]:
        text += f" featuring {_listing(said['instrument'])}"
    if said["character"]:
        text += f". Characterized as {_listing(said['character'])}"
    return text + "."


def _best_first(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])


def _article(phrase: str) -> str:
    vowel = phrase[0] in "AEIOU" and not phrase.startswith("UK")  # "a you-kay"
    return "An" if vowel else "A"


def _listing(chosen: list[str]) -> str:
    return " and ".join([", ".join(chosen[:-1]), chosen[-1]] if len(chosen) > 1 else chosen)


def default_cache_dir() -> Path:
    """The folder specgan in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specgan"


def _fingerprint(mulan: nn.Module) -> str:
    """Identifies the weights of the text side: a digest of the beginning of each tensor."""
    digest = hashlib.sha256()
    for key, tensor in mulan.state_dict().items():
        if key.startswith(("mulan.text.", "mulan.text_to_latents.")):
            digest.update(f"{key} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _read_cache(path: Path, *, shape: tuple[int, int]) -> Tensor | None:
    try:
        embeddings = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as err:
        _log.warning("%s cannot be read (%s); the words are embedded again", path, err)
        return None
    if embeddings.shape != shape or embeddings.dtype != np.float32 or not np.isfinite(embeddings).all():
        _log.warning("%s does not hold the embeddings of these words; they are embedded again", path)
        return None
    return torch.from_numpy(embeddings)


def _write_cache(path: Path, embeddings: Tensor) -> None:
    try:
        with atomic_path(path) as temporary:
            np.save(temporary, embeddings.numpy())
    except OSError as err:
        _log.warning("%s cannot be written (%s); the next run embeds the words again", path, err)
