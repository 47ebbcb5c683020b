"""How fast is `python preprocess.py task=spectrograms`? Ratios against loops that people write.

    python benchmarks/preprocess.py                    # everything, about 25 minutes on 2 cores
    python benchmarks/preprocess.py --rows 5s 1s       # some rows
    python benchmarks/preprocess.py --n-clips 500      # smaller, where starting Python weighs more

Each command is timed as a whole, from its start to its exit, imports and workers included, because that is what one
waits for; and with N_FEW clips, which is nearly all start. The difference, by clip, is what large folders feel.
Commands of one row take turns, and the median of the repeats counts. All write into a folder that is removed before
each run, in the system's temporary folder: TMPDIR=/dev/shm keeps a slow disk out of it. The sounds are made up:
decaying harmonics in noise, one seed each.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
N_FFT, HOP_LENGTH, N_MELS = 1024, 256, 80
N_FEW = 20

# name: seconds, rate of the files, rate of the spectrograms, format, peers and the ratios that we promise
ROWS = {
    "5s": (5.0, 22050, 22050, "pt", {"librosa": 5, "torchaudio": 2.5}),
    "5s-resampled": (5.0, 44100, 16000, "pt", {"librosa": 5, "torchaudio": 2.5}),
    "5s-png": (5.0, 22050, 22050, "png", {"matplotlib": 40}),
    "1s": (1.0, 8000, 8000, "pt", {"librosa": 6, "torchaudio": 3}),
}


def write_clips(folder: Path, n_clips: int, duration_s: float, rate: int) -> None:
    t = np.arange(round(duration_s * rate)) / rate
    for seed in range(n_clips):
        rng = np.random.default_rng(seed)
        pitch, decay = rng.uniform(80, 800), rng.uniform(0.2, 3)
        harmonics = sum(np.sin(2 * np.pi * k * pitch * t + rng.uniform(0, 6.3)) / k for k in range(1, 6))
        sound = 0.2 * harmonics * np.exp(-decay * t) + 0.01 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{seed:06d}.wav", sound, rate, subtype="PCM_16")


def librosa_loop(files: list[Path], output: Path, rate: int) -> None:
    import librosa
    import torch

    for file in files:
        waveform, _ = librosa.load(file, sr=rate)
        power = librosa.feature.melspectrogram(y=waveform, sr=rate, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS)
        torch.save(torch.from_numpy(librosa.power_to_db(power)), output / f"{file.stem}.pt")


def torchaudio_loop(files: list[Path], output: Path, rate: int) -> None:
    import torch
    import torchaudio

    torch.set_num_threads(2)
    transform = torchaudio.transforms.MelSpectrogram(rate, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS)
    to_db = torchaudio.transforms.AmplitudeToDB()
    resample = None
    for file in files:
        samples, file_rate = soundfile.read(file, dtype="float32")
        waveform = torch.from_numpy(samples)
        if file_rate != rate:
            resample = resample or torchaudio.transforms.Resample(file_rate, rate)
            waveform = resample(waveform)
        torch.save(to_db(transform(waveform)), output / f"{file.stem}.pt")


def matplotlib_loop(files: list[Path], output: Path, rate: int) -> None:
    import librosa
    import librosa.display
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for file in files:
        waveform, _ = librosa.load(file, sr=rate)
        power = librosa.feature.melspectrogram(y=waveform, sr=rate, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS)
        figure, axes = plt.subplots()
        librosa.display.specshow(librosa.power_to_db(power), sr=rate, hop_length=HOP_LENGTH, cmap="magma", ax=axes)
        axes.set_axis_off()
        figure.savefig(output / f"{file.stem}.png", bbox_inches="tight", pad_inches=0)
        plt.close(figure)


PEERS = {"librosa": librosa_loop, "torchaudio": torchaudio_loop, "matplotlib": matplotlib_loop}


def seconds(command: list[str], output: Path, n_expected: int) -> float:
    """Runs a command that fills the folder `output`, anew."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    elapsed = time.perf_counter() - start
    n_files = sum(path.suffix in (".pt", ".png") for path in output.rglob("*"))
    if done.returncode or n_files != n_expected:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}, {n_files} of {n_expected} files\n{done.stderr}")
    return elapsed


def time_row(name: str, n_clips: int, repeats: int, folder: Path) -> None:
    duration_s, file_rate, rate, file_format, promised = ROWS[name]
    output = folder / "output"
    folders = {n: folder / f"{n}-clips" for n in (N_FEW, n_clips)}
    for n, clips in folders.items():
        shutil.rmtree(clips, ignore_errors=True)
        clips.mkdir()
        write_clips(clips, n, duration_s, file_rate)

    def command(tool: str, clips: Path) -> list[str]:
        if tool != "specgan":
            return [sys.executable, __file__, "--peer", tool, str(clips), str(output), str(rate)]
        settings = (f"task.format={file_format}", f"spectrogram.sample_rate={rate}", f"spectrogram.n_mels={N_MELS}")
        return [sys.executable, "preprocess.py", "task=spectrograms", f"input={clips}", f"output={output}", *settings]

    times = {(tool, n): [] for tool in ("specgan", *promised) for n in folders}
    for _ in range(repeats):
        for tool, n in times:
            times[tool, n].append(seconds(command(tool, folders[n]), output, n))
    whole = {tool: statistics.median(times[tool, n_clips]) for tool in ("specgan", *promised)}
    by_clip = {tool: 1e3 * (whole[tool] - statistics.median(times[tool, N_FEW])) / (n_clips - N_FEW) for tool in whole}
    print(f"{name}: {n_clips} clips, specgan {whole['specgan']:.1f} s, {by_clip['specgan']:.2f} ms for one clip more")
    for peer, aim in promised.items():
        print(
            f"    {peer} {whole[peer]:.1f} s, {whole[peer] / whole['specgan']:.1f} x; {by_clip[peer]:.2f} ms for one "
            f"clip more, {by_clip[peer] / by_clip['specgan']:.1f} x; aim {aim} x",
            flush=True,
        )
    shutil.rmtree(folders[n_clips])


def time_help(repeats: int) -> None:
    command = [sys.executable, "preprocess.py", "--help"]
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    print(f"python preprocess.py --help: {statistics.median(times):.2f} s; aim under 1.5 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--n-clips", type=int, default=5000, help="of each row; of pictures a fifth")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", nargs=4, metavar=("NAME", "CLIPS", "OUTPUT", "RATE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        name, clips, output, rate = arguments.peer
        PEERS[name](sorted(Path(clips).iterdir()), Path(output), int(rate))
        return
    time_help(arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        for row in arguments.rows:
            is_slow = ROWS[row][3] == "png"
            n_clips = max(1, arguments.n_clips // 5) if is_slow else arguments.n_clips
            time_row(row, n_clips, 1 if is_slow else arguments.repeats, Path(folder))


if __name__ == "__main__":
    main()
