"""specgan.tasks.decode: pictures become songs again, to the sample; what is missing is said."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specgan.audio import load_audio, save_wav
from specgan.batch.executors import Processes
from specgan.batch.runner import UnitError
from specgan.codec.png import from_png, to_png
from specgan.tasks.decode import decode_pictures
from specgan.tasks.encode import encode_songs

RATE = 8000
SIZE = 64  # slices of 2048 samples


def noise(n_samples: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    return 0.3 * (2 * torch.rand(channels, n_samples, generator=torch.Generator().manual_seed(seed)) - 1)


def snr(decoded: torch.Tensor, waveform: torch.Tensor) -> float:
    assert decoded.shape == waveform.shape
    return float(10 * torch.log10(waveform.square().sum() / (decoded - waveform).square().sum()))


def sounds(folder) -> dict:
    return {path.relative_to(folder).as_posix(): load_audio(path, mono=False) for path in sorted(folder.rglob("*.wav"))}


def assert_came_back(decoded, songs, *, least_snr=75) -> None:
    originals, copies = sounds(songs), sounds(decoded)
    assert list(copies) == list(originals)
    for name, (waveform, rate) in originals.items():
        assert copies[name][1] == rate
        assert snr(copies[name][0], waveform) > least_snr


@pytest.fixture
def songs(tmp_path):
    root = tmp_path / "songs"
    save_wav(root / "long.wav", noise(9000), RATE)
    save_wav(root / "album" / "stereo.wav", noise(5000, channels=2, seed=1), 11025)
    return root


@pytest.fixture
def images(songs, tmp_path):
    encode_songs(songs, tmp_path / "images", size=SIZE, mono=False)
    return tmp_path / "images"


def test_every_song_comes_back(songs, images, tmp_path):
    report = decode_pictures(images, tmp_path / "audio")
    assert (report.n_done, report.failures) == (2, [])
    assert_came_back(tmp_path / "audio", songs)


@settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_samples=st.integers(1, 6000),
    rate=st.sampled_from([8000, 11025, 44100, 48000, 192000]) | st.integers(1000, 200_000),
    n_channels=st.integers(1, 6),
    bit_depth=st.sampled_from([8, 16]),
    trim_db=st.none() | st.floats(-80, -10),
    seed=st.integers(0, 2**16),
)
def test_any_file_comes_back(tmp_path, n_samples, rate, n_channels, bit_depth, trim_db, seed):
    root = tmp_path / f"{n_samples}-{rate}-{n_channels}-{bit_depth}-{trim_db}-{seed}"
    waveform = noise(n_samples, channels=n_channels, seed=seed)
    save_wav(root / "songs" / "x.wav", waveform, rate, subtype="FLOAT")
    how = {"size": SIZE, "bit_depth": bit_depth, "mono": False, "trim_db": trim_db}
    encode_songs(root / "songs", root / "images", **how)
    decode_pictures(root / "images", root / "audio")
    decoded, decoded_rate = load_audio(root / "audio" / "x.wav", mono=False)
    assert (decoded_rate, decoded.shape) == (rate, waveform.shape)
    if trim_db is None:
        assert snr(decoded, waveform) > (75 if bit_depth == 16 else 28.5)
    else:  # what was cut off is softer than that
        assert (decoded - waveform).abs().max() < 10 ** (trim_db / 20) + (1e-4 if bit_depth == 16 else 0.05)


def test_workers_give_the_same_bytes(images, tmp_path):
    decode_pictures(images, tmp_path / "serial")
    decode_pictures(images, tmp_path / "workers", executor=Processes(2))
    for path in (tmp_path / "serial").rglob("*.wav"):
        other = tmp_path / "workers" / path.relative_to(tmp_path / "serial")
        assert other.read_bytes() == path.read_bytes()


def test_names_and_folders_of_the_pictures_do_not_matter(songs, images, tmp_path):
    (tmp_path / "renamed").mkdir()
    for number, path in enumerate(sorted(images.rglob("*.png"), key=lambda path: path.name[::-1])):
        shutil.copy(path, tmp_path / "renamed" / f"{number}.png")
    decode_pictures(tmp_path / "renamed", tmp_path / "audio")
    assert_came_back(tmp_path / "audio", songs)


def test_songs_of_one_name_stay_apart(tmp_path):
    for folder, n_samples in (("a", 3000), ("b", 5000)):
        save_wav(tmp_path / folder / "song.wav", noise(n_samples), RATE)
        encode_songs(tmp_path / folder, tmp_path / "images" / folder, size=SIZE)
    decode_pictures(tmp_path / "images", tmp_path / "audio")
    assert sorted(waveform.shape[1] for waveform, _ in sounds(tmp_path / "audio").values()) == [3000, 5000]


def test_trimmed_silence_and_gain_come_back(tmp_path):
    waveform = torch.zeros(1, 10_000)
    waveform[:, 3000:8000] = 10 * noise(5000)  # the two silences differ
    (tmp_path / "songs").mkdir()
    soundfile.write(tmp_path / "songs" / "song.wav", waveform[0].numpy(), RATE, subtype="FLOAT")
    encode_songs(tmp_path / "songs", tmp_path / "images", size=SIZE, trim_db=-60)
    decode_pictures(tmp_path / "images", tmp_path / "audio")
    decoded = sounds(tmp_path / "audio")["song.wav"][0]
    assert snr(decoded, waveform) > 75
    assert decoded[:, :3000].eq(0).all()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_subtypes(songs, images, tmp_path, subtype):
    decode_pictures(images, tmp_path / "audio", subtype=subtype)
    assert soundfile.info(tmp_path / "audio" / "long.wav").subtype == subtype
    assert_came_back(tmp_path / "audio", songs)


def test_one_picture_makes_its_slice(songs, images, tmp_path):
    decode_pictures(images / "album" / "stereo_0002_ch1.png", tmp_path / "slice.wav")
    decoded, rate = load_audio(tmp_path / "slice.wav", mono=False)
    assert rate == 11025
    assert snr(decoded, sounds(songs)["album/stereo.wav"][0][1:, 4096:]) > 30  # its edges miss their neighbours
    assert snr(decoded[:, 128:], sounds(songs)["album/stereo.wav"][0][1:, 4096 + 128 :]) > 75


def test_a_missing_slice_is_named_and_silent(songs, images, tmp_path, caplog):
    for number in (1, 3):
        (images / f"long_000{number}.png").unlink()
    (images / "album" / "stereo_0001_ch1.png").unlink()
    report = decode_pictures(images, tmp_path / "audio")
    assert (report.n_done, report.failures) == (2, [])
    assert "long: slices 1, 3 are missing (of 5)" in caplog.text
    assert "album/stereo: slices 1 of channel 1 are missing (of 3)" in caplog.text
    decoded, original = sounds(tmp_path / "audio")["long.wav"][0], sounds(songs)["long.wav"][0]
    assert decoded.shape == original.shape
    assert decoded[:, 2048 + 128 : 4096 - 128].eq(0).all()
    assert snr(decoded[:, 4096 + 128 : 6144 - 128], original[:, 4096 + 128 : 6144 - 128]) > 75
    stereo = sounds(tmp_path / "audio")["album/stereo.wav"][0]
    assert stereo[1, 2048 + 128 : 4096 - 128].eq(0).all()
    assert snr(stereo[0], sounds(songs)["album/stereo.wav"][0][0]) > 75


def test_a_damaged_picture_fails_and_is_silent_and_is_tried_again(songs, images, tmp_path):
    path = images / "long_0001.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])  # its text is still there
    (images / "nothing.png").write_bytes(b"no picture")
    for _ in range(2):
        report = decode_pictures(images, tmp_path / "audio")
        assert sorted(failure.path for failure in report.failures) == [str(path), str(images / "nothing.png")]
        assert "not a whole PNG" in (tmp_path / "audio" / "failures.csv").read_text()
        decoded = sounds(tmp_path / "audio")["long.wav"][0]
        assert decoded.shape == (1, 9000)
        assert decoded[:, 2048 + 128 : 4096 - 128].eq(0).all()
    path.write_bytes(whole)
    (images / "nothing.png").unlink()
    report = decode_pictures(images, tmp_path / "audio")
    assert (report.n_done, report.n_skipped, report.failures) == (1, 1, [])
    assert_came_back(tmp_path / "audio", songs)
    path.write_bytes(whole[:-2000])
    with pytest.raises(UnitError, match=r"long_0001\.png"):
        decode_pictures(images, tmp_path / "audio", on_error="raise")


def test_a_second_run_makes_what_changed(images, tmp_path):
    decode_pictures(images, tmp_path / "audio")
    assert decode_pictures(images, tmp_path / "audio").n_skipped == 2
    (images / "long_0004.png").unlink()
    report = decode_pictures(images, tmp_path / "audio")
    assert (report.n_done, report.n_skipped) == (1, 1)


def save(path, picture) -> None:
    """A picture without text, as a model makes it."""
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def test_pictures_without_text_need_a_rate_and_are_songs_of_their_own(songs, images, tmp_path, caplog):
    made = tmp_path / "made"
    for number in range(2):
        save(made / f"gen_{number:04d}.png", from_png((images / f"long_000{number}.png").read_bytes())[0])
    with pytest.raises(ValueError, match=r"task\.sample_rate=44100"):
        decode_pictures(made, tmp_path / "audio")
    report = decode_pictures(made, tmp_path / "audio", sample_rate=RATE)
    assert report.n_done == 2
    assert "2 pictures have no text that says how to decode them" in caplog.text
    decoded = sounds(tmp_path / "audio")
    assert list(decoded) == ["gen_0000.wav", "gen_0001.wav"]
    waveform, rate = decoded["gen_0000.wav"]
    assert rate == RATE
    original = sounds(songs)["long.wav"][0]
    assert waveform.shape == (1, 2048)
    assert snr(waveform[:, :-128], original[:, : 2048 - 128]) > 75


def test_pictures_that_were_changed_are_refused_or_it_is_said(images, tmp_path, caplog):
    path = images / "long_0000.png"
    picture, info = from_png(path.read_bytes())
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "resized.png").write_bytes(to_png(np.ascontiguousarray(picture[:32, :32]), replace(info, number=1)))
    save(odd / "grey.png", picture[..., 0])
    save(odd / "wide.png", picture[:32])
    shutil.copy(path, odd / "good.png")
    report = decode_pictures(odd, tmp_path / "audio", sample_rate=RATE)
    reasons = {failure.path.rsplit("/", 1)[1]: failure.error for failure in report.failures}
    assert set(reasons) == {"resized.png", "grey.png", "wide.png"}
    assert "32 x 32" in reasons["resized.png"] and "64 x 64" in reasons["resized.png"]
    assert "grey" in reasons["grey.png"]
    assert "64 x 32" in reasons["wide.png"]
    assert all(reason.startswith(str(odd)) for reason in reasons.values())

    eight = tmp_path / "eight"
    eight.mkdir()
    for slice_path in images.glob("long_*.png"):
        picture, info = from_png(slice_path.read_bytes())
        (eight / slice_path.name).write_bytes(to_png(np.round(picture / 257).astype(np.uint8), info))
    decode_pictures(eight, tmp_path / "audio8")
    assert "8 bits" in caplog.text
    assert snr(sounds(tmp_path / "audio8")["long.wav"][0], noise(9000)) > 25


def spectrum(waveform: torch.Tensor) -> torch.Tensor:
    return torch.stft(waveform, 128, 32, window=torch.hann_window(128), pad_mode="constant", return_complex=True).abs()


def test_griffin_lim_finds_a_phase_for_pictures_that_have_none(images, tmp_path):
    made, original = tmp_path / "made", noise(9000)[0]
    for number in range(5):
        picture, info = from_png((images / f"long_000{number}.png").read_bytes())
        picture[..., 1:] = torch.randint(0, 65536, (SIZE, SIZE, 2)).numpy()  # phase of no use
        made.mkdir(exist_ok=True)
        (made / f"{number}.png").write_bytes(to_png(picture, info))
    errors = {}
    for phase in ("picture", "griffin_lim"):
        decode_pictures(made, tmp_path / phase, phase=phase)
        decoded = sounds(tmp_path / phase)["long.wav"][0][0]
        assert decoded.shape == original.shape
        errors[phase] = float((spectrum(decoded) - spectrum(original)).norm() / spectrum(original).norm())
    assert errors["griffin_lim"] < 0.75 * errors["picture"]


def test_griffin_lim_starts_from_the_pictures_phase(images, songs, tmp_path):
    decode_pictures(images, tmp_path / "audio", phase="griffin_lim", n_iter=4)
    assert_came_back(tmp_path / "audio", songs, least_snr=40)


def test_a_grey_picture_is_enough_for_griffin_lim(images, tmp_path, caplog):
    picture, _ = from_png((images / "long_0000.png").read_bytes())
    save(tmp_path / "grey" / "gen.png", picture[..., 0])
    decode_pictures(tmp_path / "grey", tmp_path / "audio", phase="griffin_lim", sample_rate=RATE)
    assert "grey" in caplog.text
    decoded = sounds(tmp_path / "audio")["gen.wav"][0][0]
    original = noise(9000)[0, :2048]
    assert float((spectrum(decoded) - spectrum(original)).norm() / spectrum(original).norm()) < 0.5


def test_a_song_of_absurd_length_costs_that_song(images, tmp_path):
    picture, info = from_png((images / "long_0000.png").read_bytes())
    (images / "evil.png").write_bytes(to_png(picture, replace(info, song="evil", n_samples=10**17)))
    report = decode_pictures(images, tmp_path / "audio")
    assert (report.n_done, [failure.path for failure in report.failures]) == (2, [str(images / "evil.png")])


def test_copies_of_a_picture_are_left_out_and_named(images, tmp_path, caplog):
    shutil.copy(images / "long_0001.png", images / "long_0001 (1).png")
    assert decode_pictures(images, tmp_path / "audio").n_done == 2
    assert "left out, the same slice and channel as" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"phase": "none"}, "phase is 'none'; picture or griffin_lim"),
        ({"n_iter": -1}, "n_iter is -1"),
        ({"subtype": "MP3"}, "subtype is 'MP3'"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"phase_encoding": "x"}, "phase_encoding is 'x'"),
    ],
)
def test_impossible_settings_are_named(images, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        decode_pictures(images, tmp_path / "audio", **wrong)
    assert not (tmp_path / "audio").exists()


def test_input_and_output_must_fit(images, tmp_path):
    with pytest.raises(ValueError, match=r"a name that ends in \.wav"):
        decode_pictures(images / "long_0000.png", tmp_path / "audio")
    with pytest.raises(ValueError, match="give a folder"):
        decode_pictures(images, tmp_path / "audio.wav")
    with pytest.raises(FileNotFoundError, match="no such file"):
        decode_pictures(tmp_path / "nowhere", tmp_path / "audio")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no PNG"):
        decode_pictures(tmp_path / "empty", tmp_path / "audio")
