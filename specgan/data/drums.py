"""The built-in sounds: seven classes of drum-machine sound, synthesised, so that training needs no download.

Each class is one function below, a classic analogue voice whose settings are drawn anew for every sound. Durations
named `length_s` are the time in which a voice decays by 60 dB, which is also where the sound ends.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from scipy.signal import butter, sosfilt

from specgan.audio import save_wav
from specgan.audio.results import DRUMS_MARKER
from specgan.files import remove_files, write_text

CLASSES: tuple[str, ...] = ("kick", "snare", "closed_hat", "open_hat", "clap", "tom", "cowbell")
SYNTHESIS_VERSION = 2  # raise it with every audible change: sets of another version are then made anew


def drum(name: str, *, seed: int, sample_rate: int = 44100) -> torch.Tensor:
    """One drum sound. The same name, seed and rate always give the same samples.

    Args:
        name: one of `CLASSES`.
        seed: >= 0; every seed is another sound of the class, and classes share nothing at equal seeds.
        sample_rate: Hz, >= 8000; below about 40000 hats and snares lose some of their band.
    Returns:
        (n_samples,) float32, peak in [0.5, 0.9], 0.05 s to 1 s long, starts at once and fades out to 0.
    Raises:
        ValueError: unknown name, `seed` < 0, `sample_rate` < 8000.
    """
    if name not in CLASSES:
        raise ValueError(f"name={name!r} is not a built-in drum; choose one of {', '.join(CLASSES)}")
    _check_seed_and_rate(seed, sample_rate)
    # keyed by the name, not its position: a class added later leaves the sounds of the others as they are
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(name.encode())))
    return torch.from_numpy(_finish(_VOICES[name](rng, sample_rate), rng, sample_rate).astype(np.float32))


def write_drums(audio_dir: str | Path, *, n_per_class: int = 200, seed: int = 0, sample_rate: int = 44100) -> Path:
    """Writes `<audio_dir>/<class>/<class>_0000.wav` and so on, and last the marker `<audio_dir>/drums.json`.

    A set that is there complete, with equal settings, is left alone. Any other set of this function is made anew: its
    files are replaced or removed, every other file is left alone.

    Args:
        n_per_class: sounds a class, >= 1.
        seed: >= 0; sound i of a class depends on (seed, class, i) alone, so a larger set begins like a smaller one.
        sample_rate: Hz, >= 8000.
    Returns:
        `audio_dir`.
    Raises:
        ValueError: `n_per_class` < 1, `seed` < 0, `sample_rate` < 8000; the folder holds something else.
    """
    if n_per_class < 1:
        raise ValueError(f"n_per_class={n_per_class} makes no sound; use 1 or more")
    _check_seed_and_rate(seed, sample_rate)
    audio_dir = Path(audio_dir)
    marker = audio_dir / DRUMS_MARKER
    settings = {"version": SYNTHESIS_VERSION, "n_per_class": n_per_class, "seed": seed, "sample_rate": sample_rate}
    content = json.dumps(settings, indent=2) + "\n"
    if marker.is_file() and marker.read_bytes() == content.encode():
        return audio_dir

    sounds = {f"{name}/{name}_{i:04d}.wav": (name, i) for name in CLASSES for i in range(n_per_class)}
    own = [path for name in CLASSES for path in _own_files(audio_dir, name)]
    if not marker.is_file() and (audio_dir.is_file() or any(audio_dir.glob("*"))):
        raise ValueError(
            f"{audio_dir}: holds something else than the built-in drums, so they are not written there; to train on "
            f"sounds of your own: data=folder data.audio_dir={audio_dir}"
        )
    write_text(marker, "{}\n")  # first: from here until the end the set is incomplete
    remove_files(own, audio_dir)
    for path, (name, i) in track(sounds.items(), description="synthesising drums"):
        waveform = drum(name, seed=_sound_seed(seed, i), sample_rate=sample_rate)
        save_wav(audio_dir / path, waveform, sample_rate)
    write_text(marker, content)
    return audio_dir


def _check_seed_and_rate(seed: int, sample_rate: int) -> None:
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; use 0 or more")
    if sample_rate < 8000:
        raise ValueError(f"sample_rate={sample_rate} Hz is too low for hats and snares; use 8000 or more")


def _own_files(audio_dir: Path, name: str) -> list[str]:
    """The files of a class in a set of this function."""
    own = re.compile(rf"{name}_\d{{4,}}\.wav")
    return [f"{name}/{path.name}" for path in (audio_dir / name).glob("*.wav") if own.fullmatch(path.name)]


def _sound_seed(seed: int, i: int) -> int:
    # hashed, not seed + i: the sets of seeds 0 and 1 would otherwise share all sounds but one
    return int(np.random.SeedSequence(seed, spawn_key=(i,)).generate_state(1, np.uint64)[0])


# The voices: (rng, sample_rate) -> (n_samples,) float64 of any level.


def _kick(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A sine that falls from the beater's hit to the shell's tone, a click, and a drive that rounds it off."""
    length_s = _log_uniform(rng, 0.2, 0.7)
    t = _time(length_s, sample_rate)
    pitch = _log_uniform(rng, 40, 62)  # Hz, below every tom
    sweep = pitch * rng.uniform(1.0, 4.5) * np.exp(-t / _log_uniform(rng, 0.006, 0.025))
    body = _sine(pitch + sweep, sample_rate) * _decay(t, length_s)
    click_band = _log_uniform(rng, 1000, 5000)
    click = _band(rng.standard_normal(t.size), click_band / 2, click_band, sample_rate) * _decay(t, 0.015)
    click = _unit(click) * rng.uniform(0.0, 0.35) + _stick(rng, t, sample_rate)
    return _drive(body, _log_uniform(rng, 0.5, 5.0)) + click


def _snare(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Two modes of the skin under the noise of the wires."""
    length_s = _log_uniform(rng, 0.15, 0.5)
    t = _time(length_s, sample_rate)
    pitch = _log_uniform(rng, 150, 250) * (1 + rng.uniform(0.0, 0.5) * np.exp(-t / 0.01))
    skin_s = length_s * rng.uniform(0.4, 0.9)
    skin = _sine(pitch, sample_rate) * _decay(t, skin_s)
    skin += rng.uniform(0.2, 0.8) * _sine(pitch * rng.uniform(1.5, 1.9), sample_rate) * _decay(t, skin_s * 0.7)
    wires = _band(
        rng.standard_normal(t.size), _log_uniform(rng, 700, 2500), _log_uniform(rng, 5000, 14000), sample_rate
    )
    return _unit(skin) + rng.uniform(0.5, 1.6) * _unit(wires * _decay(t, length_s))


def _closed_hat(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    return _hat(rng, sample_rate, length_s=_log_uniform(rng, 0.05, 0.15))


def _open_hat(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    return _hat(rng, sample_rate, length_s=_log_uniform(rng, 0.3, 0.9))


def _hat(rng: np.random.Generator, sample_rate: int, *, length_s: float) -> np.ndarray:
    """Six inharmonic square waves and noise, of which only the top is kept: the TR-808's recipe."""
    t = _time(length_s, sample_rate)
    bank = np.array([205.3, 304.4, 369.6, 522.7, 540.0, 800.0])  # Hz, the 808's oscillators
    bank *= rng.uniform(0.7, 1.6) * rng.uniform(0.94, 1.06, size=bank.size)
    metal = sum(_square(frequency, t, rng) for frequency in bank)
    low, high = _log_uniform(rng, 4500, 7500), _log_uniform(rng, 10000, 20000)
    metal, noise = (_unit(_band(x, low, high, sample_rate)) for x in (metal, rng.standard_normal(t.size)))
    noise_share = rng.uniform(0.1, 0.9)
    # a stick's hit on top of the ring: the louder it is, the drier the hat sounds
    envelope = _decay(t, length_s) + rng.uniform(0.0, 1.0) * _decay(t, 0.03)
    return ((1 - noise_share) * metal + noise_share * noise) * envelope


def _clap(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Hands that do not quite meet at once: a few short bursts of noise, the last one with the room's tail."""
    length_s = _log_uniform(rng, 0.18, 0.5)
    t = _time(length_s, sample_rate)
    onsets = np.concatenate([[0.0], np.cumsum(rng.uniform(0.007, 0.014, size=rng.integers(2, 5)))])
    centre, width = _log_uniform(rng, 900, 1900), rng.uniform(1.2, 1.7)
    noise = _band(rng.standard_normal(t.size), centre / width, centre * width, sample_rate)
    # a burst is too short for its noise to have an even peak, so each gets its level by itself: all hands are heard
    bursts = sum(rng.uniform(0.6, 1.0) * _unit(noise * _decay_from(onset, t, 0.02)) for onset in onsets[:-1])
    tail = _unit(noise * _decay_from(onsets[-1], t, length_s - onsets[-1]))
    return _drive(bursts + rng.uniform(0.4, 1.0) * tail, _log_uniform(rng, 0.5, 2.0))


def _tom(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A low, mid or high tom: a sine that falls a little, the membrane's next mode, the breath of the skin."""
    length_s = _log_uniform(rng, 0.45, 0.95)
    t = _time(length_s, sample_rate)
    pitch = rng.choice([122.0, 170.0, 240.0]) * rng.uniform(0.88, 1.12)  # Hz
    pitch = pitch * (1 + rng.uniform(0.1, 0.6) * np.exp(-t / _log_uniform(rng, 0.02, 0.08)))
    body = _sine(pitch, sample_rate) * _decay(t, length_s)
    # 1.59: ratio of the first two modes of an ideal round membrane
    body += rng.uniform(0.05, 0.35) * _sine(1.59 * pitch, sample_rate) * _decay(t, length_s * 0.4)
    skin = _band(rng.standard_normal(t.size), 300, _log_uniform(rng, 1500, 5000), sample_rate) * _decay(t, 0.08)
    skin = rng.uniform(0.02, 0.25) * _unit(skin) + _stick(rng, t, sample_rate)
    return _drive(body, _log_uniform(rng, 0.3, 2.0)) + skin


def _cowbell(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Two square waves about a fifth apart (540 and 800 Hz in the TR-808), band-passed, with a hard hit."""
    length_s = _log_uniform(rng, 0.15, 0.7)
    t = _time(length_s, sample_rate)
    low = 540 * _log_uniform(rng, 0.75, 1.35)
    high = low * 1.48 * rng.uniform(0.97, 1.03)
    pair = _square(low, t, rng) + rng.uniform(0.7, 1.2) * _square(high, t, rng)
    shell = _band(pair, low * 0.8, high * _log_uniform(rng, 1.1, 6.0), sample_rate)
    shell = _unit(shell * (_decay(t, length_s) + rng.uniform(0.2, 1.5) * _decay(t, 0.05)))
    return shell + _stick(rng, t, sample_rate)


_VOICES = {
    "kick": _kick,
    "snare": _snare,
    "closed_hat": _closed_hat,
    "open_hat": _open_hat,
    "clap": _clap,
    "tom": _tom,
    "cowbell": _cowbell,
}


# What the voices are made of.


def _finish(sound: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    sound = sosfilt(butter(2, 20, "highpass", fs=sample_rate, output="sos"), sound)  # no DC
    n_fade = min(sound.size // 5, sample_rate // 50)  # 20 ms
    sound[-n_fade:] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, n_fade + 1) / n_fade)  # ends on exactly 0
    return _unit(sound) * 0.9 * 10 ** (-rng.uniform(0.0, 4.0) / 20)  # up to 4 dB softer than full level


def _time(length_s: float, sample_rate: int) -> np.ndarray:
    return np.arange(round(length_s * sample_rate)) / sample_rate


def _decay(t: np.ndarray, length_s: float) -> np.ndarray:
    return 10 ** (-3 * t / length_s)  # -60 dB at `length_s`


def _decay_from(onset: float, t: np.ndarray, length_s: float) -> np.ndarray:
    return np.where(t >= onset, _decay(np.maximum(t - onset, 0.0), length_s), 0.0)


def _sine(frequency: np.ndarray, sample_rate: int) -> np.ndarray:
    # the phase is the running sum of the frequency, from 0, so that a sweep has no jump and the hit no step
    return np.sin(2 * np.pi * (np.cumsum(frequency) - frequency[0]) / sample_rate)


def _square(frequency: float, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Square wave of random phase, each sample its mean since the one before: far fewer aliases than its sign."""
    step = frequency * (t[1] - t[0])  # cycles a sample
    cycles = frequency * t + rng.uniform()
    area = [2 * np.abs((x % 1) - 0.5) for x in (cycles - step, cycles)]  # a triangle, whose slope is the square
    return (area[1] - area[0]) / (2 * step)


def _band(sound: np.ndarray, low: float, high: float, sample_rate: int) -> np.ndarray:
    """Keeps `low` to `high` Hz, 12 dB an octave to either side; a band beyond the rate is moved below its Nyquist."""
    low, high = min(low, 0.3 * sample_rate), min(high, 0.48 * sample_rate)
    return sosfilt(butter(2, [low, high], "bandpass", fs=sample_rate, output="sos"), sound)


def _stick(rng: np.random.Generator, t: np.ndarray, sample_rate: int) -> np.ndarray:
    """The hit of a stick or beater: a soft burst of noise, of all that can be heard above 1 kHz."""
    noise = _band(rng.standard_normal(t.size), 1000, 18000, sample_rate) * _decay(t, _log_uniform(rng, 0.008, 0.025))
    return _unit(noise) * _log_uniform(rng, 0.02, 0.15)


def _drive(sound: np.ndarray, amount: float) -> np.ndarray:
    return np.tanh(amount * sound) / np.tanh(amount)


def _unit(sound: np.ndarray) -> np.ndarray:
    return sound / np.abs(sound).max()


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
