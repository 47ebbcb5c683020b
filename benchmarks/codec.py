"""What do the pictures of `python preprocess.py task=encode` keep, weigh and cost?

    python benchmarks/codec.py                          # everything, on made-up sounds, about 6 minutes on 2 cores
    python benchmarks/codec.py --sounds songs/          # quality and bytes on your own
    python benchmarks/codec.py --parts speed --n-songs 8

Three parts, through the real commands, encode and then decode:

quality     each WAV that comes back against its source, sample by sample, all channels: SNR in dB. Silent files have
            none; they must come back as exact silence. Beside it the recipe that one finds in notebooks: STFT pictures
            resized by Lanczos, compared only where it keeps anything.
bytes       of the pictures against FLAC of the same samples in 16 bits. A picture has the same size however little of
            it is sound, so short files weigh more.
speed       whole commands, as benchmarks/preprocess.py does it: with n songs and with N_FEW, which is nearly all
            start; the difference, by song, is what large folders feel. Commands take turns, the median of the repeats
            counts, and the output folder is removed before each run. The peer is the loop that one would write with
            librosa and OpenCV, one process; specgan runs as it does by default, and in one process too.

All is written to the system's temporary folder: TMPDIR=/dev/shm keeps a slow disk out of it.
"""

import argparse
import io
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import cv2
import librosa
import numpy as np
import soundfile

from specgan.files import safe_name, unique_names  # no more of specgan here, so that the peers do not load torch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("quality", "bytes", "speed")

# size, bit depth, phase encoding: the dB that we promise
CODECS = {
    (1024, 16, "cos_sin"): 75,
    (512, 16, "cos_sin"): 75,
    (256, 16, "cos_sin"): 75,
    (1024, 8, "cos_sin"): 30,
    (1024, 16, "instantaneous_frequency"): 75,
    (1024, 8, "instantaneous_frequency"): 30,
}
RECIPE_SIZES = (1024, 512)

N_FFT, HOP_LENGTH, SIZE = 2048, 512, 1024  # of the peers, and of the codec at this size
SLICE_SAMPLES = SIZE * HOP_LENGTH
RECIPE_DB = 80.0  # below the peak
LOOP_TOP_DB, LOOP_RANGE_DB = 61.0, 150.0  # a constant at full scale has 60.2

N_FEW = 2
SONG_S, SONG_RATE = 60, 44100
SPEED_AIM = 2


def song(duration_s: float, rate: int, seed: int) -> np.ndarray:
    """Notes of decaying harmonics, two a second, in noise: (n_samples,), full scale 1.0."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * rate)) / rate
    beat = (2 * t).astype(int)
    phase = 2 * np.pi * np.cumsum(rng.uniform(80, 800, beat[-1] + 1)[beat]) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 6))
    return 0.2 * harmonics * np.exp(-rng.uniform(2, 8) * (t - beat / 2)) + 0.01 * rng.standard_normal(len(t))


def write_sounds(folder: Path) -> None:
    """Songs of many lengths, rates, levels and formats, and sounds that are hard to keep."""
    rates, subtypes = (8000, 22050, 44100, 48000, 96000), ("PCM_16", "PCM_24", "FLOAT")
    for seed, duration_s in enumerate(np.geomspace(0.05, 40, 15)):
        rate = rates[seed % len(rates)]
        channels = [song(duration_s, rate, 2 * seed + channel) for channel in range(1 + seed % 2)]
        level = 10 ** (-(seed % 4) * 10 / 20)
        soundfile.write(folder / f"song_{seed:02d}.wav", level * np.stack(channels, axis=1), rate, subtypes[seed % 3])
    rng, rate = np.random.default_rng(0), 44100
    t = np.arange(5 * rate) / rate
    hard = {
        "click": (t == 1) * 0.9,
        "constant": np.full_like(t, 0.5),
        "loud": 4 * song(5, rate, 100),
        "noise": rng.uniform(-1, 1, len(t)),
        "quiet": 1e-3 * song(5, rate, 101),  # -84 dB: part of its noise is below range_db=150, and so it misses the aim
        "silence": np.zeros_like(t),
        "sine": np.sin(2 * np.pi * 1000 * t),
        "square": np.sign(np.sin(2 * np.pi * 220 * t)),
        "sweep": 0.8 * np.sin(2 * np.pi * (20 * t + 2000 * t**2)),
    }
    (folder / "hard").mkdir()
    for name, samples in hard.items():
        soundfile.write(folder / "hard" / f"{name}.wav", samples, rate, subtype="FLOAT")


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def task(name: str, source: Path, output: Path, *settings: str) -> list[str]:
    return [sys.executable, "preprocess.py", f"task={name}", f"input={source}", f"output={output}", *settings]


def measure_sounds(sounds: Path, parts: list[str], folder: Path) -> None:
    from specgan.audio import find_audio

    # A link, because the path may have characters that mean something on a command line of Hydra.
    source, pictures, decoded = (folder / name for name in ("sounds", "pictures", "decoded"))
    source.symlink_to(sounds.resolve(), target_is_directory=True)
    files = find_audio(source)
    weights = {}
    if "quality" in parts:
        print(f"{'':44}files  lowest dB  median dB  aim  below  silent  exact  lengths  lowest file")
    for codec, aim in CODECS.items():
        size, bit_depth, phase_encoding = codec
        if "quality" not in parts and size != SIZE:
            continue
        settings = (f"task.size={size}", f"task.bit_depth={bit_depth}", f"task.phase_encoding={phase_encoding}")
        run(task("encode", source, pictures, *settings, "task.mono=false"))
        if size == SIZE:
            weights[codec] = [path.stat().st_size for path in pictures.rglob("*.png")]
        if "quality" in parts:
            run(task("decode", pictures, decoded))
            print_quality(describe(codec), aim, decoded_pairs(files, source, decoded))
            shutil.rmtree(decoded)
        shutil.rmtree(pictures)
    if "quality" in parts:
        for size in RECIPE_SIZES:
            print_quality(f"resized recipe, {size} x {size}, 16 bit", None, recipe_pairs(files, source, size))
    if "bytes" in parts:
        print_bytes(files, weights)


def describe(codec: tuple[int, int, str]) -> str:
    size, bit_depth, phase_encoding = codec
    return f"size {size}, {bit_depth} bit, {phase_encoding}"


def read(file: Path) -> tuple[np.ndarray, int]:
    """(channels, n_samples) float32, and the rate in Hz."""
    from specgan.audio import load_audio

    waveform, rate = load_audio(file, mono=False)
    return waveform.numpy(), rate


def decoded_pairs(files: list[Path], root: Path, decoded: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields the name, the sound (channels, n_samples) and what came back of each file."""
    wanted = {file: "/".join(map(safe_name, file.relative_to(root).with_suffix("").parts)) for file in files}
    outputs = {file: decoded / f"{name}.wav" for file, name in unique_names(wanted, root).items()}
    if odd := set(outputs.values()) ^ set(decoded.rglob("*.wav")):
        sys.exit(f"these WAVs are missing, or of no source: {', '.join(sorted(map(str, odd)))}")
    for file, output in outputs.items():
        (sound, rate), (back, rate_back) = read(file), read(output)
        if rate_back != rate or len(back) != len(sound):
            sys.exit(f"{file}: {len(sound)} channels at {rate} Hz, back come {len(back)} at {rate_back} Hz")
        yield str(file.relative_to(root)), sound, back


def recipe_pairs(files: list[Path], root: Path, size: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """As decoded_pairs, of what the recipe keeps."""
    for file in files:
        sound, _ = read(file)
        back = np.stack([recipe_round_trip(channel, size) for channel in sound])
        n_kept = min(sound.shape[1], back.shape[1])
        yield str(file.relative_to(root)), sound[:, :n_kept], back[:, :n_kept]


def recipe_round_trip(samples: np.ndarray, size: int) -> np.ndarray:
    """The PNG between is left out, which would keep the picture; and the peak is known, which no picture holds.

    Frames behind the last whole slice are lost; a sound that is shorter than a slice is padded to one.
    """
    samples = np.pad(samples, (0, max(0, (SIZE - 1) * HOP_LENGTH - len(samples))))
    spectrum = librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH)
    magnitude, phase = np.abs(spectrum), np.angle(spectrum)
    level = librosa.amplitude_to_db(magnitude, ref=np.max, top_db=RECIPE_DB)
    channels = np.stack([level / RECIPE_DB + 1, (np.cos(phase) + 1) / 2, (np.sin(phase) + 1) / 2], axis=-1)
    codes = np.rint(65535 * channels.clip(0, 1)).astype(np.uint16)
    slices = []
    for start in range(0, codes.shape[1] - SIZE + 1, SIZE):
        picture = cv2.resize(codes[:, start : start + SIZE], (size, size), interpolation=cv2.INTER_LANCZOS4)
        picture = cv2.resize(picture, (SIZE, N_FFT // 2 + 1), interpolation=cv2.INTER_LANCZOS4)
        red, green, blue = np.moveaxis(picture.astype(np.float32) / 65535, -1, 0)
        back = librosa.db_to_amplitude(RECIPE_DB * (red - 1), ref=magnitude.max())
        slices.append(back * np.exp(1j * np.arctan2(2 * blue - 1, 2 * green - 1)))
    return librosa.istft(np.concatenate(slices, axis=1), hop_length=HOP_LENGTH)


def print_quality(name: str, aim: float | None, pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Prints one row; SNR is over the samples that both have."""
    levels, n_silent, n_exact, n_same_length = {}, 0, 0, 0
    for file, sound, back in pairs:
        n_same_length += sound.shape[1] == back.shape[1]
        if sound.any():
            levels[file] = snr(sound, back)
        else:
            n_silent += 1
            n_exact += not back.any()
    n_files = len(levels) + n_silent
    if not levels:
        print(f"{name:44}{n_files:5}  all silent, {n_exact} exactly", flush=True)
        return
    lowest = min(levels, key=levels.get)
    below = "" if aim is None else sum(level < aim for level in levels.values())
    # Without an aim, only what the peer keeps was compared.
    lengths = "kept" if aim is None else "all" if n_same_length == n_files else f"{n_same_length}"
    print(
        f"{name:44}{n_files:5}{levels[lowest]:11.1f}{statistics.median(levels.values()):11.1f}{aim or '':>5}{below:>7}"
        f"{n_silent:8}{n_exact:7}{lengths:>9}  {lowest}",
        flush=True,
    )


def snr(sound: np.ndarray, back: np.ndarray) -> float:
    """dB, over all channels."""
    n_samples = min(sound.shape[1], back.shape[1])
    sound, back = sound[:, :n_samples].astype(np.float64), back[:, :n_samples]
    noise = np.square(back - sound).sum()
    return 10 * math.log10(max(np.square(sound).sum(), 1e-300) / noise) if noise else math.inf


def print_bytes(files: list[Path], weights: dict[tuple[int, int, str], list[int]]) -> None:
    """Prints what FLAC takes, and the pictures whose bytes `weights` lists."""
    n_flac = n_samples = duration_s = 0
    for file in files:
        sound, rate = read(file)
        flac = io.BytesIO()
        soundfile.write(flac, sound.T, rate, format="FLAC", subtype="PCM_16")
        n_flac += len(flac.getvalue())
        n_samples += sound.size
        duration_s += sound.size / rate
    print(f"{len(files)} files, {duration_s:.0f} s of sound in all channels; kB for each second of each channel:")
    print(f"    {'FLAC, 16 bit':44}{n_flac / duration_s / 1e3:8.1f}")
    for codec, n_bytes in weights.items():
        filled = n_samples / (len(n_bytes) * SLICE_SAMPLES)
        print(
            f"    {describe(codec):44}{sum(n_bytes) / duration_s / 1e3:8.1f}, {sum(n_bytes) / n_flac:.1f} x FLAC; "
            f"{filled:.0%} of the pictures is sound",
            flush=True,
        )


def encode_loop(source: Path, output: Path) -> None:
    for file in sorted(source.iterdir()):
        waveform, _ = librosa.load(file, sr=None)
        spectrum = librosa.stft(waveform, n_fft=N_FFT, hop_length=HOP_LENGTH)[:SIZE]
        spectrum = np.pad(spectrum, ((0, 0), (0, -spectrum.shape[1] % SIZE)))
        level = 20 * np.log10(np.maximum(np.abs(spectrum), 1e-10))
        red = (np.clip(level - LOOP_TOP_DB, -LOOP_RANGE_DB, 0) / LOOP_RANGE_DB + 1) * 65535
        phase = np.angle(spectrum)
        green, blue = (np.cos(phase) + 1) / 2 * 65535, (np.sin(phase) + 1) / 2 * 65535
        picture = np.flip(np.stack([blue, green, red], axis=-1).round().astype(np.uint16), axis=0)
        for number in range(picture.shape[1] // SIZE):
            part = picture[:, number * SIZE : (number + 1) * SIZE]
            cv2.imwrite(str(output / f"{file.stem}_{number:04d}.png"), part)


def decode_loop(source: Path, output: Path) -> None:
    for name, files in groupby(sorted(source.iterdir()), key=lambda file: file.stem.rsplit("_", 1)[0]):
        pictures = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        picture = np.flip(np.concatenate(pictures, axis=1), axis=0).astype(np.float32) / 65535
        blue, green, red = np.moveaxis(picture, -1, 0)
        magnitude = 10 ** ((LOOP_TOP_DB + LOOP_RANGE_DB * (red - 1)) / 20)
        spectrum = magnitude * np.exp(1j * np.arctan2(2 * blue - 1, 2 * green - 1))
        spectrum = np.pad(spectrum, ((0, 1), (0, 0)))  # bin 1024 was left out
        waveform = librosa.istft(spectrum, n_fft=N_FFT, hop_length=HOP_LENGTH)
        soundfile.write(output / f"{name}.wav", waveform, SONG_RATE, subtype="FLOAT")


PEERS = {"encode": encode_loop, "decode": decode_loop}
TOOLS = {"specgan": (), "specgan, one process": ("executor=serial",), "librosa": None}


def seconds(command: list[str], output: Path, suffix: str, n_expected: int) -> float:
    """Runs a command that fills the folder `output`, anew."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    start = time.perf_counter()
    run(command)
    elapsed = time.perf_counter() - start
    n_files = len(list(output.rglob(f"*{suffix}")))
    if n_files != n_expected:
        sys.exit(f"{' '.join(command)}: {n_files} of {n_expected} files")
    return elapsed


def measure_speed(n_songs: int, repeats: int, folder: Path) -> None:
    n_slices = math.ceil(SONG_S * SONG_RATE / SLICE_SAMPLES)
    sources = {(tool, n): folder / f"{n}-songs" for tool in TOOLS for n in (N_FEW, n_songs)}
    for (_, n), songs in sources.items():
        songs.mkdir(exist_ok=True)
        for seed in range(n):
            file = songs / f"song{seed}.wav"
            if not file.exists():
                soundfile.write(file, song(SONG_S, SONG_RATE, seed), SONG_RATE, subtype="PCM_16")
    print(f"{n_songs} songs of {SONG_S} s, mono, {SONG_RATE} Hz, size {SIZE}:")
    for name, suffix, n_files in (("encode", ".png", n_slices), ("decode", ".wav", 1)):
        outputs = {key: folder / f"{name}-{number}" for number, key in enumerate(sources)}
        times = {key: [] for key in sources}
        for _ in range(repeats):
            for (tool, n), source in sources.items():
                output = outputs[tool, n]
                if TOOLS[tool] is None:
                    command = [sys.executable, __file__, "--peer", name, str(source), str(output)]
                else:
                    command = task(name, source, output, *TOOLS[tool])
                times[tool, n].append(seconds(command, output, suffix, n * n_files))
        print_speed(name, n_songs, {key: statistics.median(each) for key, each in times.items()})
        sources = outputs  # each decodes its own pictures


def print_speed(name: str, n_songs: int, times: dict[tuple[str, int], float]) -> None:
    by_song = {tool: (times[tool, n_songs] - times[tool, N_FEW]) / (n_songs - N_FEW) for tool in TOOLS}
    for tool in TOOLS:
        print(f"    {name}, {tool}: {times[tool, n_songs]:.1f} s, {by_song[tool]:.3f} s for one song more", end="")
        if TOOLS[tool] is None:
            print()
            continue
        whole = times["librosa", n_songs] / times[tool, n_songs]
        one_more = by_song["librosa"] / by_song[tool]
        aim = f"; aim {SPEED_AIM} x" if tool == "specgan" else ""
        print(f"; librosa takes {whole:.1f} x, for one more {one_more:.1f} x{aim}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, metavar="FOLDER", help="of audio files, for quality and bytes")
    parser.add_argument("--n-songs", type=int, default=24, help=f"for speed, more than {N_FEW}")
    parser.add_argument("--repeats", type=int, default=3, help="for speed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--peer", nargs=3, metavar=("NAME", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        name, source, output = arguments.peer
        PEERS[name](Path(source), Path(output))
        return
    if arguments.n_songs <= N_FEW or arguments.repeats < 1:
        parser.error(f"--n-songs is {arguments.n_songs}, more than {N_FEW}; --repeats {arguments.repeats}, at least 1")
    if arguments.sounds and not arguments.sounds.is_dir():
        parser.error(f"--sounds is {arguments.sounds}; an existing folder")
    with tempfile.TemporaryDirectory() as folder:
        if {"quality", "bytes"} & set(arguments.parts):
            sounds = arguments.sounds or Path(folder, "made-up")
            if not arguments.sounds:
                sounds.mkdir()
                write_sounds(sounds)
            measure_sounds(sounds, arguments.parts, Path(folder))
        if "speed" in arguments.parts:
            measure_speed(arguments.n_songs, arguments.repeats, Path(folder))


if __name__ == "__main__":
    main()
