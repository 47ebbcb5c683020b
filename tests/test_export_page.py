"""specgan export output=x.html: a page alone, without any network, draws the sounds that generate.py writes."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from checkpoints import PARAMS, save_checkpoint

from specgan.audio import WavSettings
from specgan.export.exporting import export
from specgan.export.runtime import MissingRuntimeError, find_runtime
from specgan.latent.mixing import class_points
from specgan.latent.space import LatentSpace
from specgan.models.generators import draw
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import denormalise
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.learned import Learned
from specgan.vocoders.refinement import Refiner

CLASSES = ["7", "kick", "</script><b>snare"]
VOCODERS = {"griffin-lim": partial(GriffinLim, n_iter=8), "learned": Learned}
RUNNING_S = 60  # until WebAssembly runs on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    try:
        find_runtime(None)
    except MissingRuntimeError as err:
        pytest.skip(f"needs onnxruntime-web, by npm: {str(err).splitlines()[0]}")
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    held = Refiner(PARAMS, width=16, n_blocks=1, n_bands=12, n_steps=1, n_iter=2).contents()
    VOCODERS["learned"] = partial(Learned, held=held)
    for name, vocoder in VOCODERS.items():
        checkpoint = save_checkpoint(folder / f"{name}.ckpt", CLASSES, channels=2)
        export(checkpoint, output=folder / f"{name}.html", vocoder=vocoder)
    return folder


@contextmanager
def open_page(browser, path, **settings):
    """Without network. Errors of the script, and any request but that of the page itself, fail the test."""
    context = browser.new_context(offline=True, accept_downloads=True, **settings)
    page = context.new_page()
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: request.url.startswith("blob:") or asked.append(request.url))
    page.goto(path.as_uri())
    page.get_by_text("Ready").wait_for(timeout=RUNNING_S * 1000)
    try:
        yield page
    finally:
        context.close()
    assert (errors, asked) == ([], [path.as_uri()])


@pytest.mark.parametrize("name", VOCODERS)
def test_a_class_and_a_seed_are_the_sound_of_generate(name, browser, folder):
    trained = TrainedGenerator.load(folder / f"{name}.ckpt")
    with open_page(browser, folder / f"{name}.html") as page:
        for label, seed in ((2, 7), (0, 2**33 + 5)):
            spectrograms = trained.sample_indices([label], [seed])
            (expected,) = VOCODERS[name](PARAMS, trained.level_range)(spectrograms, seeds=[seed]).numpy()
            levels, sound = page.evaluate(
                "async ([label, seed]) => { const { levels, sound } = await drawSound({ label, seed });"
                "return [levels, sound].map(channels => channels.map(x => Array.from(x))) }",
                [label, seed],
            )
            assert np.abs(expected[0] - expected[1]).max() > 0.01  # two channels that are not one
            level = denormalise(spectrograms, trained.level_range)[0].flatten(1)
            np.testing.assert_allclose(levels, level, rtol=0, atol=5e-3)  # dB
            np.testing.assert_allclose(sound, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_the_way_to_another_sound_is_that_of_a_morph(browser, folder):
    trained = TrainedGenerator.load(folder / "griffin-lim.ckpt")
    ends = [class_points(trained, CLASSES[label], [seed])[0] for label, seed in ((2, 7), (1, 4))]
    point = LatentSpace(trained).morph(*ends, n_positions=5)[3]
    spectrograms = draw(trained.network, point.z[None], point.embedding[None])
    (expected,) = VOCODERS["griffin-lim"](PARAMS, trained.level_range)(spectrograms, seeds=[4]).numpy()
    with open_page(browser, folder / "griffin-lim.html") as page:
        ways = "drawSound({ label: 2, seed: 7 }, { label: 1, seed: 4 }, 0.75)"
        sound = page.evaluate(f"async () => (await {ways}).sound.map(x => Array.from(x))")
        np.testing.assert_allclose(sound, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
        page.get_by_role("button", name=CLASSES[2]).click()
        page.get_by_role("status").get_by_text(f"{CLASSES[2]}, seed 0.").wait_for()
        page.locator("select").select_option("kick")
        page.get_by_role("slider", name="Position").press("PageUp")
        page.get_by_role("status").get_by_text(f"% of the way from {CLASSES[2]}, seed 0 to kick, seed 1.").wait_for()
        page.get_by_role("slider", name="Position").press("End")
        page.get_by_role("status").get_by_text("kick, seed 1.", exact=True).wait_for()
        assert page.locator("output").inner_text() == "100 %"
        page.get_by_role("button", name="7", exact=True).click()
        page.get_by_role("status").get_by_text("7, seed 0.", exact=True).wait_for()
        assert page.locator("output").inner_text() == "0 %"


def test_noise_is_that_of_pytorch(browser, folder):
    with open_page(browser, folder / "griffin-lim.html") as page:
        for n in (3, 16, 21):
            drawn = page.evaluate("n => [normalNoise, uniformNoise].map(draw => Array.from(draw(n, 3)))", n)
            for values, draw in zip(drawn, (torch.randn, torch.rand), strict=True):
                expected = draw(n, generator=torch.Generator().manual_seed(3))
                np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


def test_people_hear_see_and_keep_sounds_also_by_keyboard(browser, folder, tmp_path):
    trained = TrainedGenerator.load(folder / "griffin-lim.ckpt")
    with open_page(browser, folder / "griffin-lim.html", viewport={"width": 400, "height": 800}) as page:
        assert page.get_by_role("heading").inner_text() == "griffin-lim"
        page.get_by_label("Seed", exact=True).fill("3")
        chosen = page.get_by_role("button", name=CLASSES[2])
        chosen.press("Enter")
        page.get_by_role("status").get_by_text(f"{CLASSES[2]}, seed 3.").wait_for()
        assert chosen.get_attribute("aria-pressed") == "true"
        page.wait_for_function("() => !document.querySelector('audio').paused || document.querySelector('audio').ended")
        for name in ("spectrogram", "waveform"):
            canvas = page.locator(f"canvas#{name}")
            drawn = canvas.evaluate("x => Array.from(x.getContext('2d').getImageData(0, 0, x.width, x.height).data)")
            assert len(set(drawn)) > 2
            assert CLASSES[2] in canvas.get_attribute("aria-label")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download WAV").press("Enter")
        download.value.save_as(tmp_path / "kept.wav")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        page.get_by_role("button", name="New sound").press("Enter")
        page.wait_for_function("() => document.querySelector('input').value !== '3'")
        seed = page.get_by_label("Seed", exact=True).input_value()
        page.get_by_role("status").get_by_text(f"seed {seed}.").wait_for()
        assert page.get_by_role("alert").inner_text() == ""
    (waveform,) = VOCODERS["griffin-lim"](PARAMS, trained.level_range)(trained.sample_indices([2], [3]), seeds=[3])
    expected, rate = WavSettings().applied(waveform, PARAMS.sample_rate)
    kept, kept_rate = soundfile.read(tmp_path / "kept.wav", dtype="float32")
    assert kept_rate == rate
    expected = expected / expected.abs().max().clamp_min(1)
    np.testing.assert_allclose(kept.T, expected, rtol=0, atol=1e-3)
