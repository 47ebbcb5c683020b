"""specgan.pictures: what people look at shows the numbers, and the page finds its files."""

import fnmatch
import io
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2
import matplotlib
import matplotlib.image
import numpy as np
import pytest
import torch
from pages import Page

from specgan.pictures.figures import to_figure, to_png
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import LevelRange, SpectrogramParams

ROOT = Path(__file__).parents[1]
STEPS = (torch.arange(256) / 127.5 - 1).reshape(16, 16)  # every value that an 8-bit picture can tell apart


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3 or 4) in [0, 1], read by another library than the one that wrote it."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return matplotlib.image.imread(io.BytesIO(png), format="png")


# --- exact-size PNG


@pytest.mark.parametrize("scale", [1, 2, 5])
@pytest.mark.parametrize("shape", [(64, 64), (128, 512), (16, 3), (1, 1)])
def test_a_png_has_one_pixel_a_value_times_scale(shape, scale):
    spectrogram = 2 * torch.rand(shape) - 1
    picture = pixels(to_png(spectrogram, scale=scale))
    assert picture.shape == (shape[0] * scale, shape[1] * scale, 3)
    one_pixel = pixels(to_png(spectrogram))
    np.testing.assert_array_equal(picture, np.kron(one_pixel, np.ones((scale, scale, 1), np.float32)))


def test_low_frequencies_are_at_the_bottom_and_time_runs_to_the_right():
    spectrogram = torch.full((8, 6), -1.0)
    spectrogram[0, 5] = 1.0  # lowest band, last frame
    bright = pixels(to_png(spectrogram, cmap="gray")).mean(-1)
    assert bright[7, 5] == 1
    assert bright.sum() == 1


@pytest.mark.parametrize("cmap", ["magma", "gray", "viridis", "twilight", "tab10"])
def test_the_extremes_are_the_ends_of_the_colormap_and_what_is_beyond_is_cut(cmap):
    picture = pixels(to_png(torch.tensor([[-1.0, 1.0, -3.0, 3.0]]), cmap=cmap))[0]
    low, high = matplotlib.colormaps[cmap]([0.0, 1.0])[:, :3]
    np.testing.assert_allclose(picture, [low, high, low, high], atol=0.51 / 255)


@pytest.mark.parametrize("cmap", ["gray", "magma", "twilight"])
def test_the_colours_are_matplotlibs(cmap):
    picture = pixels(to_png(STEPS, cmap=cmap))
    expected = matplotlib.colormaps[cmap](np.linspace(0, 1, 256).reshape(16, 16)[::-1])[..., :3]
    np.testing.assert_allclose(picture, expected, atol=0.51 / 255)


def test_grey_is_the_value_itself():
    picture = pixels(to_png(STEPS, cmap="gray"))
    np.testing.assert_array_equal((picture[::-1] * 255).round()[..., 0], np.arange(256).reshape(16, 16))


def test_an_unknown_colormap_is_named():
    with pytest.raises(ValueError, match=r"cmap is 'magmaa'; one of matplotlib's colormaps, e\.g\. magma"):
        to_png(STEPS, cmap="magmaa")


# --- figure


@pytest.mark.parametrize("level", ["db", "log1p"])
def test_a_figure_is_a_readable_picture_of_the_spectrogram(level):
    params = SpectrogramParams(level=level)
    draw = {"params": params, "level_range": LevelRange(params.silence, 10.0), "title": "kick"}
    silent, loud = (pixels(to_figure(torch.full((64, 64), value), **draw)) for value in (-1.0, 1.0))
    assert silent.shape == (300, 400, 4)
    middle = (150, 150)  # inside the axes
    np.testing.assert_allclose(silent[middle][:3], matplotlib.colormaps["magma"](0.0)[:3], atol=0.01)
    np.testing.assert_allclose(loud[middle][:3], matplotlib.colormaps["magma"](1.0)[:3], atol=0.01)


def test_a_figure_has_low_frequencies_at_the_bottom():
    spectrogram = torch.full((64, 64), -1.0)
    spectrogram[:32] = 1.0
    params = SpectrogramParams()
    bright = pixels(to_figure(spectrogram, params, LevelRange(-80.0, 0.0), title="", cmap="gray"))[..., :3].mean(-1)
    inside = bright[40:240, 150]
    assert inside[-1] == 1 and inside[0] == 0


@pytest.mark.parametrize("title", ["a$b$_", "$", r"$\nonsense$", "snare <1>"])
def test_any_name_can_be_the_title(title):
    draw = (torch.zeros(16, 16), SpectrogramParams(n_mels=16), LevelRange(-80.0, 0.0))
    titled, untitled = pixels(to_figure(*draw, title=title)), pixels(to_figure(*draw, title=""))
    assert titled.shape == (300, 400, 4)
    assert (titled != untitled).any()


# --- gallery


def test_a_gallery_shows_a_name_as_it_is_and_finds_its_files(tmp_path):
    name = 'it\'s <b>bold & "more": grüße ♫ #1 100%20?'
    folder = tmp_path / name
    folder.mkdir()
    for suffix in (".png", ".wav"):
        (folder / f"{name}_1{suffix}").touch()
    sound = Entry(caption=f"{name}, seed 1", picture=f"{name}/{name}_1.png", audio=f"{name}/{name}_1.wav")
    write_gallery(tmp_path / "index.html", title=name, note=f"About {name}.", sections={name: [sound]})

    page = Page(tmp_path / "index.html")
    addresses = [urlsplit(source) for source in page.values("src")]
    assert [unquote(a.path) for a in addresses] == [sound.picture, sound.audio]
    for address in addresses:
        assert (address.scheme, address.netloc, address.query, address.fragment) == ("", "", "", "")
        assert (tmp_path / unquote(address.path)).is_file()
    assert [page.texts[tag][0] for tag in ("title", "h1", "h2")] == [name] * 3
    assert page.texts["figcaption"] == [sound.caption]
    assert page.values("alt") == [f"spectrogram: {sound.caption}"]
    assert page.texts["p"][0] == f"About {name}."
    assert "b" not in page.texts  # no name became markup


def test_a_gallery_has_a_figure_for_each_sound_in_order_and_a_player_only_where_there_is_sound(tmp_path):
    sections = {
        "kick": [Entry("seed 0", "kick_0.png", "kick_0.wav"), Entry("seed 1", "kick_1.png", None)],
        "clap": [Entry("seed 2", "clap_2.png", "clap_2.wav")],
    }
    write_gallery(tmp_path / "new" / "index.html", title="Sounds", note="", sections=sections)
    page = Page(tmp_path / "new" / "index.html")
    assert page.texts["h2"] == ["kick", "clap"]
    assert page.texts["figcaption"] == ["seed 0", "seed 1", "seed 2"]
    assert page.values("src") == ["kick_0.png", "kick_0.wav", "kick_1.png", "clap_2.png", "clap_2.wav"]
    assert [len(page.texts[tag]) for tag in ("section", "figure", "img", "audio")] == [2, 3, 3, 2]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.html"]  # nothing half-written beside it


def test_a_figure_may_be_text_alone_and_as_wide_as_wanted(tmp_path):
    sections = {"names": [Entry("a <b>", None, None)], "pictures": [Entry("c", "c.png", None)]}
    for name, settings in (("narrow", {}), ("wide", {"width": "60rem"})):
        write_gallery(tmp_path / f"{name}.html", title="", note="", sections=sections, **settings)
    narrow, wide = ((tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("narrow", "wide"))
    assert Page(wide).texts["figcaption"] == ["a <b>", "c"]
    assert Page(wide).values("src") == ["c.png"]
    assert "width: 12rem;" in narrow
    assert wide == narrow.replace("width: 12rem;", "width: 60rem;")


def test_braces_in_a_text_stay_as_they_are(tmp_path):
    write_gallery(tmp_path / "a.html", title="{note}", note="{0} {sections}", sections={})
    page = Page(tmp_path / "a.html")
    assert page.texts["h1"][0] == "{note}"
    assert page.texts["p"][0] == "{0} {sections}"


def test_files_beside_the_code_are_installed_with_it():
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{glob}" for package, globs in packaged.items() for glob in globs]
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "specgan").rglob("*.*") if path.is_file()]
    beside = [path for path in files if not path.endswith((".py", ".pyc"))]
    assert "specgan/pictures/templates/gallery.html" in beside
    assert [path for path in beside if not any(fnmatch.fnmatch(path, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize(("scale", "size"), [(0.5, (8, 15)), (0.01, (1, 1)), (1.5, (24, 45)), (1, (16, 30))])
def test_any_scale_gives_exactly_that_size(scale, size):
    picture = pixels(to_png(torch.rand(16, 30) * 2 - 1, scale=scale))
    assert picture.shape[:2] == size


def test_below_one_a_pixel_is_the_mean_of_its_values():
    spectrogram = torch.tensor([[-1.0, 0.0, 1.0, 1.0], [-1.0, 0.0, -1.0, -1.0]])
    grey = cv2.imdecode(np.frombuffer(to_png(spectrogram, scale=0.5, grayscale=True), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(grey, [[64, 128]], atol=1)


def test_grayscale_is_one_channel_low_frequencies_at_the_bottom():
    spectrogram = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]])
    grey = cv2.imdecode(np.frombuffer(to_png(spectrogram, grayscale=True), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.tolist() == [[0, 0], [128, 128], [255, 255]]


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="scale is 0; above 0"):
        to_png(torch.zeros(4, 4), scale=0)
    with pytest.raises(ValueError, match="2000000 x 1 pixels, PNG readers take 1000000 at most"):
        to_png(torch.zeros(1, 2_000_000))
