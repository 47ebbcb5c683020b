"""task=compare: the figures of each pair, side by side on a page; what cannot be paired or compared is named."""

import csv
import math
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import torch
from folders import contents
from pages import Page
from runs import run

from specgan.batch.journal import Journal
from specgan.batch.runner import UnitError
from specgan.codec.coding import CodecParams, decode_spectrum, encode_slice
from specgan.codec.joining import JoinedSlices
from specgan.codec.png import SliceInfo, to_png
from specgan.tasks.compare import compare_pictures

ROOT = Path(__file__).parents[1]
SMALL = CodecParams(size=64)  # slices of 2048 samples
WIDTH = SMALL.slice_samples + SMALL.n_fft - SMALL.hop_length


def noise(seed: int = 0, n_samples: int = WIDTH) -> torch.Tensor:
    return 0.4 * torch.rand(n_samples, generator=torch.Generator().manual_seed(seed)) - 0.2


def picture(seed: int = 0, params: CodecParams = SMALL) -> np.ndarray:
    return encode_slice(noise(seed), params)


def noisy(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each code is off by up to 200."""
    off = np.random.default_rng(seed).integers(-200, 201, pixels.shape)
    return np.clip(pixels.astype(int) + off, 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def write(path: Path, pixels: np.ndarray, params: CodecParams | None = SMALL, n_samples: int = 2048) -> Path:
    """Writes a picture with its text or, where `params` is None, without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if params is None:
        path.write_bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes())
    else:
        path.write_bytes(to_png(pixels, SliceInfo(params, 44100, "song", n_samples=n_samples)))
    return path


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return tmp_path / "original", tmp_path / "reconstructed"


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "comparison"


def write_pair(folders, name: str, original: np.ndarray, reconstructed: np.ndarray, **text) -> None:
    for folder, pixels in zip(folders, (original, reconstructed), strict=True):
        write(folder / name, pixels, **text)


def compare(folders, output, **settings):
    return compare_pictures(folders[0], output, reconstructed=folders[1], **settings)


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "comparison.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def figures(output: Path, name: str = "a.png") -> dict[str, float]:
    row = table(output)[name]
    return {key: float(value) for key, value in row.items() if key.endswith("_db") and value}


def figures_of(tmp_path: Path, original: Path, reconstructed: Path, **settings) -> dict[str, float]:
    compare_pictures(original, tmp_path / "figures", reconstructed=reconstructed, **settings)
    return figures(tmp_path / "figures", original.name)


def page(output: Path) -> Page:
    return Page(output / "index.html")


# Figures


def test_identical_pictures_have_infinite_figures_and_are_counted(folders, output):
    for seed, name in enumerate(["a.png", "sub/b.png"]):
        write_pair(folders, name, picture(seed), picture(seed))
    report = compare(folders, output)
    for name in ("a.png", "sub/b.png"):
        assert figures(output, name) == {
            "psnr_db": math.inf,
            "psnr_magnitude_db": math.inf,
            "snr_db": math.inf,
            "lsd_db": 0,
        }
    assert report.message == f"{output}: 2 pairs; 2 identical"
    assert (report.n_done, report.n_skipped, report.failures) == (2, 0, [])


def test_psnr_is_that_of_the_16_bit_scale(folders, output):
    """Red is off by 100 in half of the picture: a mean square of 5000, or 5000 / 3 over all channels."""
    original = np.full((64, 64, 3), 30_000, np.uint16)
    reconstructed = original.copy()
    reconstructed[:, :32, 0] -= 100
    write_pair(folders, "a.png", original, reconstructed)
    report = compare(folders, output)
    assert figures(output)["psnr_magnitude_db"] == pytest.approx(59.3398, abs=1e-4)  # 10 log10(65535^2 / 5000)
    assert figures(output)["psnr_db"] == pytest.approx(64.1110, abs=1e-4)
    assert "1 pair, PSNR 64.1 dB (magnitude 59.3)" in report.message


def test_phase_alone_leaves_the_magnitude_identical(folders, output):
    reconstructed = picture()
    reconstructed[..., 1] ^= 255
    write_pair(folders, "a.png", picture(), reconstructed)
    report = compare(folders, output)
    assert figures(output)["psnr_magnitude_db"] == math.inf
    assert 40 < figures(output)["psnr_db"] < 80
    assert "(magnitude inf)" in report.message
    assert report.message.endswith("; 0 identical")


def test_the_summary_is_of_the_pairs_that_differ(folders, output):
    pixels = np.full((64, 64, 3), (30_000, 31_000, 32_000), np.uint16)
    for name, off in (("a.png", 0), ("b.png", 10), ("c.png", 1000)):  # inf, 76.3295 and 36.3295 dB
        write_pair(folders, name, pixels, pixels + np.uint16(off))
    write_pair(folders, "d.png", pixels, pixels + np.array([0, 0, 1000], np.uint16))  # 41.1007, magnitude inf
    message = compare(folders, output).message
    assert "4 pairs, PSNR 51.3 dB (magnitude 56.3)" in message
    different = [figures(output, name) for name in ("b.png", "c.png", "d.png")]
    snr, lsd = ([each[key] for each in different] for key in ("snr_db", "lsd_db"))
    assert f"SNR median {np.median(snr):.1f} dB, LSD {np.mean(lsd):.2f} dB; 1 identical" in message
    assert np.isfinite(snr + lsd).all()


def test_half_the_sound_has_6_db_of_everything(folders, output):
    write_pair(folders, "a.png", encode_slice(noise(), SMALL), encode_slice(noise() / 2, SMALL))
    compare(folders, output)
    assert figures(output)["snr_db"] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert figures(output)["lsd_db"] == pytest.approx(20 * math.log10(2), abs=0.01)


@pytest.mark.parametrize("n_samples", [2048, 1500, 100, 3])
def test_snr_and_lsd_are_those_of_the_waveforms(folders, output, n_samples):
    pictures = picture(), noisy(picture())
    write_pair(folders, "a.png", *pictures, n_samples=n_samples)
    compare(folders, output)
    waveforms = []
    for pixels in pictures:
        song = JoinedSlices(n_samples, SMALL)
        song.add(0, decode_spectrum(pixels, SMALL))
        waveforms.append(song.waveform().double().numpy())
    original, reconstructed = waveforms
    snr = 10 * np.log10((original**2).sum() / ((reconstructed - original) ** 2).sum())
    assert figures(output)["snr_db"] == pytest.approx(snr, abs=1e-3)

    n_fft = {2048: 2048, 1500: 1024, 100: 64, 3: 16}[n_samples]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    distances = []
    for centre in range(0, n_samples, n_fft // 4):
        levels = []
        for waveform in waveforms:
            padded = np.pad(waveform, n_fft)[centre + n_fft // 2 :][:n_fft]
            amplitude = np.abs(np.fft.rfft(padded * window)) / (window.sum() / 2)
            levels.append(10 * np.log10(amplitude**2 + 1e-10))
        distances.append(np.sqrt(((levels[0] - levels[1]) ** 2).mean()))
    assert figures(output)["lsd_db"] == pytest.approx(np.mean(distances), abs=1e-3)


def test_what_lies_behind_the_end_of_the_song_is_no_error(folders, output):
    reconstructed = picture()
    reconstructed[:, 20:] = 0  # frames from sample 640 - 64 on
    write_pair(folders, "a.png", picture(), reconstructed, n_samples=500)
    compare(folders, output)
    assert figures(output)["psnr_db"] < 20
    assert (figures(output)["snr_db"], figures(output)["lsd_db"]) == (math.inf, 0)


def test_a_silent_original_has_no_snr(folders, output):
    silence = encode_slice(torch.zeros(WIDTH), SMALL)
    write_pair(folders, "a.png", silence, picture())
    write_pair(folders, "b.png", silence, silence)
    report = compare(folders, output)
    assert table(output)["a.png"]["snr_db"] == ""
    assert 20 < figures(output)["lsd_db"] < 100  # the floor is 100 dB below a full-scale sine
    assert (figures(output, "b.png")["snr_db"], figures(output, "b.png")["lsd_db"]) == (math.inf, 0)
    assert "SNR median" not in report.message


# How pictures hold sound


@pytest.mark.parametrize("phase_encoding", ["cos_sin", "instantaneous_frequency"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_picture_that_lost_its_text_is_like_its_partner(tmp_path, phase_encoding, bit_depth):
    params = CodecParams(64, bit_depth, phase_encoding, range_db=130.0)
    pictures = picture(0, params), noisy(picture(0, params))
    original, reconstructed = (write(tmp_path / f"{i}.png", pixels, params) for i, pixels in enumerate(pictures))
    wanted = figures_of(tmp_path, original, reconstructed)
    without = [write(tmp_path / "without" / f"{i}.png", pixels, None) for i, pixels in enumerate(pictures)]
    assert figures_of(tmp_path, original, without[1]) == wanted
    assert figures_of(tmp_path, without[0], reconstructed) == wanted
    assert figures_of(tmp_path, *without, phase_encoding=phase_encoding, range_db=130.0) == wanted
    assert figures_of(tmp_path, *without, range_db=140.0)["snr_db"] != wanted["snr_db"]


def test_8_bits_are_widened_and_said_if_it_is_one_alone(folders, output, caplog):
    eight = (picture() / 257).round().astype(np.uint8)
    widened = eight.astype(np.uint16) * 257
    write_pair(folders, "both.png", eight, noisy(eight), params=None)
    write_pair(folders, "one.png", picture(), eight, params=None)
    write_pair(folders, "same.png", widened, eight, params=None)
    compare(folders, output)
    assert figures(output, "same.png")["psnr_db"] == math.inf
    square = np.square(picture() - widened.astype(float)).mean()
    assert figures(output, "one.png")["psnr_db"] == pytest.approx(10 * math.log10(65535**2 / square), abs=1e-3)
    square = np.square(eight / 255 - noisy(eight) / 255).mean()
    assert figures(output, "both.png")["psnr_db"] == pytest.approx(10 * math.log10(1 / square), abs=1e-3)
    assert figures(output, "one.png")["snr_db"] == pytest.approx(30, abs=10)  # what 8 bits hold
    (message,) = [each for each in caplog.messages if "bit" in each]
    assert message == "16 bit against 8 bit: the 8-bit picture is widened to 16: one.png, same.png"


def test_a_picture_that_cannot_be_decoded_has_the_other_figures(folders, output, caplog):
    odd = np.full((65, 65, 3), 1000, np.uint16)
    odd[..., 1] = 2000  # colour
    write_pair(folders, "a.png", odd, odd + np.uint16(65), params=None)
    write_pair(folders, "b.png", picture(), picture())
    assert compare(folders, output).failures == []
    assert figures(output) == {
        "psnr_db": pytest.approx(60.0712, abs=1e-4),  # 20 log10(65535 / 65)
        "psnr_magnitude_db": pytest.approx(60.0712, abs=1e-4),
    }
    assert (table(output)["a.png"]["snr_db"], table(output)["a.png"]["lsd_db"]) == ("", "")
    assert any("no sound to compare: original has 65 x 65 pixels" in each for each in caplog.messages)
    assert "no sound to compare" in page(output).texts["figcaption"][0]


def test_texts_that_disagree_are_told(folders, output, caplog):
    other = replace(SMALL, range_db=120.0)
    write(folders[0] / "a.png", picture())
    write(folders[1] / "a.png", picture(0, other), other)
    compare(folders, output)
    assert figures(output)["snr_db"] > 70  # each was decoded by its own
    assert "range_db 150.0 against 120.0: their PSNR means little: a.png" in caplog.messages


def test_alpha_is_left_out(folders, output):
    write(folders[0] / "a.png", picture())
    bgra = np.dstack([picture()[..., ::-1], np.full((64, 64), 77, np.uint16)])
    (folders[1]).mkdir()
    (folders[1] / "a.png").write_bytes(cv2.imencode(".png", bgra)[1].tobytes())
    compare(folders, output)
    assert figures(output)["psnr_db"] == figures(output)["snr_db"] == math.inf


# Pairs


def test_pictures_without_a_partner_are_named_and_all_stand_on_the_page(folders, output, caplog):
    write_pair(folders, "a.png", picture(), picture())
    for i in range(13):
        write(folders[0] / "sub" / f"{i:02d}.png", picture())
    write(folders[1] / "<b>.png", picture())
    write(folders[1] / ".hidden.png", picture())
    (folders[1] / "notes.txt").write_text("no picture")
    assert compare(folders, output).n_done == 1
    ten = ", ".join(f"sub/{i:02d}.png" for i in range(10))
    assert caplog.messages == [
        f"no partner in {folders[1]} for {ten} and 3 more, of {folders[0]}",
        f"no partner in {folders[0]} for <b>.png, of {folders[1]}",
    ]
    text = page(output).texts
    assert text["h2"] == [
        f"Only in {folders[0]}",
        f"Only in {folders[1]}",
        "Original | Reconstructed | Difference × 50",
    ]
    assert text["figcaption"][:14] == [*(f"sub/{i:02d}.png" for i in range(13)), "<b>.png"]
    assert set(table(output)) == {"a.png"}


def test_two_files_are_a_pair_whatever_they_are_called(tmp_path, output):
    original, reconstructed = write(tmp_path / "x.png", picture()), write(tmp_path / "y.png", noisy(picture()))
    report = compare_pictures(original, output, reconstructed=reconstructed)
    assert report.n_done == 1
    assert 40 < figures(output, "x.png")["psnr_db"] < 70
    assert set(contents(output)) == {"comparison.csv", "index.html", "pictures/x.png", ".compare.jsonl"}


def test_bad_pictures_are_in_failures_and_the_rest_is_done(folders, output):
    write_pair(folders, "good.png", picture(), picture())
    write(folders[0] / "size.png", picture())
    write(folders[1] / "size.png", np.zeros((32, 48, 3), np.uint16), None)
    write_pair(folders, "grey.png", picture()[..., 0], picture()[..., 0], params=None)
    write_pair(folders, "damaged.png", picture(), picture())
    (folders[1] / "damaged.png").write_bytes((folders[0] / "damaged.png").read_bytes()[:1000])
    report = compare(folders, output)
    assert (report.n_done, len(report.failures)) == (1, 3)
    with (output / "failures.csv").open(newline="") as file:
        rows = [(Path(row["path"]).name, row["stage"], row["error"]) for row in csv.DictReader(file)]
    size = f"{folders[0] / 'size.png'}: 64 x 64 pixels in colour, and {folders[1] / 'size.png'}: 48 x 32 pixels"
    assert [row[:2] for row in rows] == [("damaged.png", "read"), ("grey.png", "compare"), ("size.png", "compare")]
    assert rows[0][2].startswith(f"{folders[1] / 'damaged.png'}: not a whole PNG")
    assert "64 x 64 pixels grey" in rows[1][2]
    assert rows[2][2].startswith(size)
    assert set(table(output)) == {"good.png"}
    assert page(output).texts["figcaption"][:3] == [row[2] for row in rows]
    assert page(output).texts["h2"][0] == "Not compared"

    write(folders[1] / "size.png", picture())  # mended
    report = compare(folders, output)
    assert (report.n_done, report.n_skipped, len(report.failures)) == (1, 1, 2)
    assert set(table(output)) == {"good.png", "size.png"}


def test_raise_stops_at_the_first(folders, output):
    write_pair(folders, "a.png", picture()[..., 0], picture(), params=None)
    with pytest.raises(UnitError, match="64 x 64 pixels grey"):
        compare(folders, output, on_error="raise")


def test_when_nothing_can_be_compared_there_is_no_old_page(folders, output):
    write_pair(folders, "a.png", picture(), picture())
    compare(folders, output)
    (folders[1] / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"nothing could be made; .*failures\.csv"):
        compare(folders, output)
    assert {path for path in contents(output) if not path.startswith(".")} == {"failures.csv"}


# Refusals


def test_nothing_paired_is_an_error_with_both_folders_and_names(folders, output):
    for name in "abcd":
        write(folders[0] / f"{name}.png", picture())
    write(folders[1] / "sub" / "a.png", picture())
    with pytest.raises(ValueError) as err:
        compare(folders, output)
    assert f"{folders[0]} (a.png, b.png, c.png and 1 more) and {folders[1]} (sub/a.png)" in str(err.value)
    assert not output.exists()


@pytest.mark.parametrize("place", ["original", "original/sub", "reconstructed", "reconstructed/a/b", "link/sub"])
def test_an_output_whose_pictures_would_be_found_is_refused(folders, tmp_path, place):
    write_pair(folders, "a.png", picture(), picture())
    (tmp_path / "link").symlink_to(folders[1])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"where its pictures would be found"):
        compare(folders, tmp_path / place)
    assert contents(tmp_path) == before


def test_folders_that_cannot_work_are_refused(folders, output, tmp_path):
    write_pair(folders, "a.png", picture(), picture())
    with pytest.raises(ValueError, match="input and reconstructed are both"):
        compare((folders[0], tmp_path / "original" / "." / ""), output)
    with pytest.raises(ValueError, match="one is a folder"):
        compare((folders[0], folders[1] / "a.png"), output)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        compare((folders[0], tmp_path / "nowhere"), output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no PNG in it"):
        compare((folders[0], tmp_path / "empty"), output)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        compare((folders[0] / "a.png", folders[1] / "a.png"), folders[0] / "a.png")
    with pytest.raises(ValueError, match="range_db is 20"):
        compare(folders, output, range_db=20)
    assert not output.exists()


def test_a_refusal_leaves_what_an_earlier_run_made(folders, output):
    write_pair(folders, "a.png", picture(), picture())
    compare(folders, output)
    before = contents(output)
    for settings in ({"on_error": "ignore"}, {"phase_encoding": "polar"}):
        with pytest.raises(ValueError, match=r"is 'ignore'|is 'polar'"):
            compare(folders, output, **settings)
    assert contents(output) == before


def test_an_original_is_never_written_over(tmp_path):
    folders = tmp_path / "pictures", tmp_path / "reconstructed"
    write_pair(folders, "a.png", picture(), noisy(picture()))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="pictures, which is written"):
        compare(folders, tmp_path)
    assert contents(tmp_path) == before


# The picture and the page


def test_the_picture_shows_original_reconstructed_and_50_times_the_difference(folders, output):
    original, reconstructed = np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4, 3), np.uint16)
    original[0, 1], reconstructed[0, 1] = (100 * 257, 20 * 257, 0), (99 * 257, 20 * 257, 3 * 257)
    original[3, 2], reconstructed[3, 2] = (65535, 0, 128), (0, 257, 129)  # 128 / 257 is less than a half, 129 more
    write_pair(folders, "a.png", original, reconstructed, params=None)
    compare(folders, output)
    bgr = cv2.imread(str(output / "pictures" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert (bgr.dtype, bgr.shape) == (np.uint8, (4, 12, 3))
    wanted = np.zeros((4, 12, 3), int)
    wanted[0, 1], wanted[0, 5], wanted[0, 9] = (100, 20, 0), (99, 20, 3), (50, 0, 150)
    wanted[3, 2], wanted[3, 6], wanted[3, 10] = (255, 0, 0), (0, 1, 1), (255, 50, 0)  # 65535 * 50 is cut
    np.testing.assert_array_equal(bgr[..., ::-1], wanted)


def test_table_and_page_say_the_same(folders, output):
    names = ["a.png", "sub/two words.png"]
    for seed, name in enumerate(names):
        write_pair(folders, name, picture(seed), noisy(picture(seed), seed))
    write_pair(folders, "same.png", picture(), picture())
    report = compare(folders, output)
    assert (output / "comparison.csv").read_text(encoding="utf-8").splitlines()[0] == (
        "name,psnr_db,psnr_magnitude_db,snr_db,lsd_db,picture"
    )
    rows = table(output)
    assert list(rows) == sorted([*names, "same.png"])
    assert all(
        (output / row["picture"]).is_file() and row["picture"] == f"pictures/{name}" for name, row in rows.items()
    )
    shown = page(output)
    assert shown.texts["p"][0] == report.message
    assert [unquote(source) for source in shown.values("src")] == [row["picture"] for row in rows.values()]
    captions = []
    for name in rows:
        f = figures(output, name)
        psnr = f"PSNR {f['psnr_db']:.1f} dB (magnitude {f['psnr_magnitude_db']:.1f})"
        same = "identical" if name == "same.png" else psnr
        captions.append(f"{name}: {same}, SNR {f['snr_db']:.1f} dB, LSD {f['lsd_db']:.2f} dB")
    assert shown.texts["figcaption"] == captions


# A second run


@pytest.fixture
def five(folders, output) -> tuple[Path, Path]:
    for i in range(5):
        write_pair(folders, f"sub/{i}.png", picture(i), noisy(picture(i), i))
    write_pair(folders, "sub/1_0001.png", picture(9), picture(9))
    write_pair(folders, "sub/odd.png", *[np.arange(75, dtype=np.uint16).reshape(5, 5, 3)] * 2, params=None)
    assert compare(folders, output).n_done == 7
    return folders


def test_a_second_run_does_nothing_and_tells_the_same(five, output, caplog):
    before, said = contents(output), [record.getMessage() for record in caplog.get_records("setup")]
    report = compare(five, output)
    assert (report.n_done, report.n_skipped) == (0, 7)
    assert contents(output) == before
    assert caplog.messages == said
    assert any("no sound to compare" in each for each in said)


def test_only_what_changed_is_compared_again(five, output, tmp_path):
    write(five[1] / "sub" / "3.png", noisy(picture(3), 77))
    (output / "pictures" / "sub" / "4.png").unlink()
    (five[0] / "sub" / "2.png").unlink()
    write_pair(five, "new.png", picture(8), picture(8))
    report = compare(five, output)
    assert (report.n_done, report.n_skipped) == (3, 4)
    compare(five, tmp_path / "fresh")
    ours, fresh = contents(output), contents(tmp_path / "fresh")
    assert set(ours) == set(fresh)
    assert "pictures/sub/2.png" not in ours
    for path in set(ours) - {"index.html"}:  # which names its folder
        assert ours[path] == fresh[path]


def test_other_settings_compare_everything_again(five, output):
    assert compare(five, output, range_db=140).n_done == 7
    assert compare((five[1], five[0]), output, range_db=140).n_done == 7


def test_what_a_killed_run_left_is_cleared_up(five, output):
    """It was at work on three pairs, of which one is gone now, when its process ended."""
    before = contents(output)
    settings = {"phase_encoding": "cos_sin", "range_db": 150.0, "input": str(five[0]), "reconstructed": str(five[1])}
    journal = Journal(output, settings, name=".compare.jsonl")
    assert not journal.is_outdated
    journal.begin(["sub/1.png", "sub/2.png", "gone.png"])
    journal.file.close()
    (output / "pictures" / "gone.png").write_bytes(b"written, but not noted")
    (output / "pictures" / "sub" / ".partial-1.png").write_bytes(b"half")
    (output / "comparison.csv").unlink()
    report = compare(five, output)
    assert (report.n_done, report.n_skipped) == (2, 5)
    assert contents(output) == before


def test_as_a_user_runs_it_on_processes(five, output, tmp_path):
    write(five[0] / "grey.png", picture()[..., 0], None)
    write(five[1] / "grey.png", picture())
    arguments = [f"input={five[0]}", f"task.reconstructed={five[1]}", f"output={tmp_path / 'theirs'}"]
    said = run("preprocess.py", "task=compare", "executor.n_workers=2", *arguments, cwd=tmp_path, code=1)
    said = " ".join(said.split())
    assert "7 pairs, PSNR" in said
    assert "2 identical (7 made, 0 already there, 1 failed)" in said
    compare(five, output)
    ours, theirs = contents(output), contents(tmp_path / "theirs")
    assert ours.pop("index.html").replace(os.fsencode(output), b"") == theirs.pop("index.html").replace(
        os.fsencode(tmp_path / "theirs"), b""
    )
    assert ours == theirs
