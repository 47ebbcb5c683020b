"""The page of the service as people use it: the real service, a tiny checkpoint, a headless Chromium."""

import json
import os
import zipfile
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from checkpoints import save_checkpoint
from runs import ROOT
from services import QUICK, running_service

from specgan.audio import save_wav
from specgan.data.drums import drum
from specgan.latent.kept import train_encoder
from specgan.models.trained import TrainedGenerator

CLASSES = ["kick", "snare <b>", "7"]


def fetch(url, content=None, **headers):
    """Returns the body of an answer, whatever its status; `content` is posted as JSON."""
    if content is not None:
        content, headers = json.dumps(content).encode(), {"Content-Type": "application/json"}
    try:
        return urlopen(Request(url, data=content, headers=headers), timeout=60).read()
    except HTTPError as err:
        return err.read()


@pytest.fixture(scope="module")
def service(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    path = save_checkpoint(folder / "best.ckpt", CLASSES)
    train_encoder(TrainedGenerator.load(path), path, n_steps=5)
    with running_service(folder, f"ckpt_path={path}", *QUICK) as address:
        yield address


@pytest.fixture(scope="module")
def kick(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds") / "a kick & <i>.wav"
    save_wav(path, drum("kick", seed=0, sample_rate=16000), 16000)
    return path


@contextmanager
def open_page(browser, address, **settings):
    """A fresh visitor. Errors of the script and addresses elsewhere fail the test."""
    context = browser.new_context(accept_downloads=True, **settings)
    page = context.new_page()
    errors, elsewhere = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: request.url.startswith((address, "data:")) or elsewhere.append(request.url))
    page.goto(address)
    page.wait_for_function("() => document.querySelector('#about').textContent.startsWith('Asking') === false")
    try:
        yield page
    finally:
        context.close()
    assert (errors, elsewhere) == ([], [])


@pytest.fixture
def page(browser, service):
    with open_page(browser, service) as page:
        yield page


def bytes_of(page, locator):
    """What the page itself gets from a player's or link's address."""
    url = locator.evaluate("part => part.src || part.href")
    return bytes(page.evaluate("async url => [...new Uint8Array(await (await fetch(url)).arrayBuffer())]", url))


def wav_of(service, name, seed):
    wav = fetch(f"{service}/api/generate", {"class": name, "n": 1, "seed": seed, "format": "wav"})
    assert wav.startswith(b"RIFF")
    return wav


def pictures_of(section):
    """Widths and heights in pixels, once the pictures are there."""
    return section.locator("img").evaluate_all(
        "pictures => Promise.all(pictures.map(async p => (await p.decode(), [p.naturalWidth, p.naturalHeight])))"
    )


def test_makes_sounds_that_can_be_heard_seen_and_downloaded(page, service):
    make = page.locator("#make")
    make.get_by_label("Class").select_option("snare <b>")
    make.get_by_label("Seed").fill("3")
    make.get_by_label("How many").fill("2")
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_text("2 sounds of snare <b>.").wait_for()
    players, links = make.locator("audio"), make.get_by_role("link", name="Download WAV")
    assert players.count() == links.count() == 2
    for i, seed in enumerate([3, 4]):
        assert bytes_of(page, players.nth(i)) == bytes_of(page, links.nth(i)) == wav_of(service, "snare <b>", seed)
        players.nth(i).evaluate("player => player.play()")  # raises if it cannot be played
        assert make.locator("figcaption span").nth(i).inner_text() == f"snare <b>, seed {seed}"
    assert players.evaluate_all("players => players.map(player => player.paused)") == [True, False]
    assert pictures_of(make) == [[32, 32]] * 2
    with page.expect_download() as download:
        links.first.click()
    assert download.value.suggested_filename.endswith("_3.wav")
    assert download.value.path().read_bytes() == wav_of(service, "snare <b>", 3)


def test_morphs_and_plays_when_the_slider_is_let_go(page, service):
    morph = page.locator("#morph")
    assert morph.get_by_label("Position", exact=True).is_hidden()
    start, end = (morph.get_by_role("group", name=name) for name in ("From", "To"))
    start.get_by_label("Class").select_option("kick")
    start.get_by_label("Seed").fill("5")
    end.get_by_label("Class").select_option("7")
    end.get_by_label("Seed").fill("6")
    morph.get_by_label("Positions").fill("3")
    morph.get_by_role("button", name="Morph").click()
    morph.get_by_text("3 sounds.").wait_for()
    player, slider = morph.locator("audio"), morph.get_by_label("Position", exact=True)
    player.evaluate("player => { window.plays = 0; player.addEventListener('play', () => window.plays++) }")
    sounds = [bytes_of(page, player)]
    for position in (1, 2):
        slider.evaluate("(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')) }", position)
        sounds.append(bytes_of(page, player))
    assert sounds[0] == wav_of(service, "kick", 5)
    assert sounds[2] == wav_of(service, "7", 6)
    assert len(set(sounds)) == 3
    assert page.evaluate("window.plays") == 0  # only shown so far
    slider.press("ArrowLeft")
    page.wait_for_function("() => window.plays === 1")
    assert bytes_of(page, player) == sounds[1] == bytes_of(page, morph.get_by_role("link", name="Download WAV"))
    assert slider.get_attribute("aria-valuetext") == "50 %"
    assert "50 % of the way from kick (seed 5) to 7 (seed 6)" in morph.locator("figcaption").inner_text()
    assert pictures_of(morph) == [[32, 32]]


def drop(page, path, data):
    """Drops a file on the page's heading, which is beside the frame for it."""
    transfer = page.evaluate_handle(
        "([name, data]) => { const transfer = new DataTransfer();"
        "transfer.items.add(new File([new Uint8Array(data)], name)); return transfer }",
        [path.name, list(data)],
    )
    for event in ("dragover", "drop"):
        page.locator("h1").dispatch_event(event, {"dataTransfer": transfer})


def test_a_dropped_or_chosen_file_is_drawn(page, kick):
    file = page.locator("#file")
    drop(page, kick, kick.read_bytes())
    file.locator(".status").get_by_text(f"Spectrogram of {kick.name}").wait_for()
    assert pictures_of(file) == [[1024, 256]]
    file.locator("audio").evaluate("player => player.play()")
    first = file.locator("img").get_attribute("src")
    file.locator("input").set_input_files(kick)
    page.wait_for_function("first => document.querySelector('#file img').getAttribute('src') !== first", arg=first)
    assert pictures_of(file) == [[1024, 256]]
    assert bytes_of(page, file.get_by_role("link", name="Download picture")).startswith(b"\x89PNG")


def test_a_dropped_sound_is_found_varied_kept_and_packed(page, kick):
    own, vary, kept = page.locator("#own"), page.locator("#vary"), page.locator("#kept")
    assert kept.is_hidden()
    drop(page, kick, kick.read_bytes())
    own.locator(".status").get_by_text(f"nearest to {kick.name}: ").wait_for()
    assert own.locator("figcaption span").first.inner_text() == kick.name
    assert pictures_of(own) == [[1024, 256], [32, 32]]
    vary.get_by_text(f"4 sounds like Nearest to {kick.name}.").wait_for()
    assert vary.get_by_label("Seed").is_disabled()  # which is that of a class
    near = bytes_of(page, vary.locator("audio").first)
    vary.get_by_role("slider", name="Distance").press("End")
    assert vary.locator("output").inner_text() == "1"
    vary.get_by_label("How many").fill("2")
    vary.get_by_role("button", name="Vary").click()
    vary.get_by_text("2 sounds like").wait_for()
    assert bytes_of(page, vary.locator("audio").first) != near
    sounds = [bytes_of(page, vary.locator("audio").nth(i)) for i in range(2)]
    for i in range(2):
        vary.get_by_role("button", name="Keep").nth(i).click()
        kept.get_by_text(f"{i + 1} sound").first.wait_for()
    vary.get_by_role("button", name="Keep").first.click()  # it is there already
    page.route("**/files/*", lambda route: route.fulfill(status=404))  # the service has forgotten them
    with page.expect_download() as download:
        kept.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(download.value.path()) as packed:
        assert packed.testzip() is None
        assert [packed.read(name) for name in packed.namelist()] == sounds
        assert all(name.endswith(".wav") and "<" not in name for name in packed.namelist())
    kept.locator("audio").first.evaluate("player => player.play()")
    kept.get_by_role("button", name="Remove").first.click()
    kept.get_by_text("1 sound kept.").wait_for()
    assert bytes_of(page, kept.get_by_role("link", name="Download WAV")) == sounds[1]
    kept.get_by_role("button", name="Remove").click()
    assert kept.is_hidden()


def test_sliders_move_and_mix_what_the_class_has_by_keyboard(page, service):
    steer = page.locator("#steer")
    asked = {"like": {"class": "kick"}}
    directions = json.loads(fetch(f"{service}/api/directions", asked))["directions"]
    sliders = steer.locator("#moves input")
    sliders.nth(5).wait_for()
    names = sliders.evaluate_all("all => all.map(each => each.dataset.name)")
    assert names == [direction["name"] for direction in directions]
    refused = [direction["refusal"] for direction in directions]
    assert [slider.is_disabled() for slider in sliders.all()] == [refusal is not None for refusal in refused]
    assert any(refused) and not all(refused)
    described = "slider => document.getElementById(slider.getAttribute('aria-describedby')).textContent"
    for slider, refusal in zip(sliders.all(), refused, strict=True):
        assert refusal is None or refusal in slider.evaluate(described)

    name = directions[refused.index(None)]["name"]
    steer.get_by_label("Seed").fill("7")
    steer.get_by_role("slider", name=name).press("ArrowRight")
    steer.locator(".results figure").wait_for()
    start, moved = wav_of(service, "kick", 7), bytes_of(page, steer.locator("audio"))
    assert moved != start
    assert steer.locator("figcaption span").inner_text() == f"kick (seed 7), {name} +0.25"
    steer.get_by_role("button", name="Back to the start").press("Enter")
    steer.get_by_role("button", name="Move").press("Enter")
    steer.locator("figcaption span").get_by_text("kick (seed 7)", exact=True).wait_for()
    assert bytes_of(page, steer.locator("audio")) == start
    steer.locator("#mix").get_by_role("slider", name="7").press("End")
    steer.locator("figcaption span").get_by_text("kick 1 + 7 1 (seed 7)").wait_for()
    steer.locator("#mix").get_by_role("slider", name="kick").press("Home")
    steer.locator("figcaption span").get_by_text("7 1 (seed 7)", exact=True).wait_for()
    assert bytes_of(page, steer.locator("audio")) == wav_of(service, "7", 7)


def test_it_goes_on_from_any_sound(page, service):
    make, morph = page.locator("#make"), page.locator("#morph")
    make.get_by_label("Class").select_option("7")
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_role("button", name="Go on from it").nth(2).click()
    assert page.evaluate("document.activeElement.innerText") == "Vary"
    for section in ("vary", "steer", "morph"):
        start = page.locator(f"#{section} [data-starts]").first
        assert start.input_value() == "7"
        assert page.locator(f"#{section}").get_by_label("Seed").first.input_value() == "2"
    page.locator("#vary button").first.click()
    page.locator("#vary").get_by_role("button", name="Go on from it").nth(1).click()
    morph.get_by_label("Positions").fill("2")
    varied = bytes_of(page, page.locator("#vary audio").nth(1))
    morph.get_by_role("button", name="Morph").click()
    morph.get_by_text("2 sounds.").wait_for()
    assert bytes_of(page, morph.locator("audio")) == varied
    assert "of the way from 7 (seed 2), distance 0.3, variation 1 to snare" in morph.locator("figcaption").inner_text()


def test_it_waits_for_the_encoder(page, kick):
    answers = []

    def first_busy(route):
        answers.append(route)
        busy = json.dumps({"success": False, "message": "wait", "error": "encoder_training"})
        route.fulfill(status=503, body=busy) if len(answers) == 1 else route.continue_()

    page.route("**/api/sounds", first_busy)
    page.clock.install()
    page.locator("#own input").set_input_files(kick)
    page.locator("#own .status").get_by_text("Training the encoder of this checkpoint").wait_for()
    page.clock.run_for(6000)
    page.locator("#own .status").get_by_text("nearest to").wait_for()
    assert len(answers) == 2


def test_errors_stand_where_they_happen_in_the_words_of_the_service(page, service, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF and nothing that follows from it")
    with page.expect_response("**/generate-spectrogram") as answer:
        page.locator("#file input").set_input_files(broken)
    message = answer.value.json()["message"]
    assert not answer.value.ok and message
    page.locator("#file .error").filter(has_text=message).first.wait_for()
    make = page.locator("#make")
    make.get_by_label("Class").evaluate("select => select.add(new Option('gong', 'gong', true, true))")
    make.get_by_role("button", name="Make sounds").click()
    make.locator(".error").filter(has_text="gong").first.wait_for()
    expected = json.loads(fetch(f"{service}/api/generate", {"class": "gong", "n": 4, "seed": 0}))["message"]
    assert make.locator("> .error").inner_text().strip() == expected
    assert page.locator("#morph > .error").inner_text() == ""
    make.get_by_label("Class").select_option("kick")  # and goes away
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_text("4 sounds of kick.").wait_for()
    assert make.locator("> .error").inner_text() == ""


def test_a_service_that_is_gone_and_files_that_are_gone_are_said(page):
    make = page.locator("#make")
    page.route("**/files/*", lambda route: route.fulfill(status=404))
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_text("No longer there").first.wait_for()
    page.route("**/api/**", lambda route: route.abort())
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_text("No answer from the service").wait_for()
    page.unroute("**/api/**")
    page.route("**/api/**", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_text("The service answered 502").wait_for()


def test_it_says_that_it_is_busy_and_asks_only_once(page):
    waiting = []
    page.route("**/api/generate", lambda route: waiting.append(route))  # goes on when we say so
    make = page.locator("#make")
    make.get_by_role("button", name="Make sounds").click()
    make.get_by_text("Making 4 sounds …").wait_for()
    assert make.locator(".results").get_attribute("aria-busy") == "true"
    assert make.get_by_role("button", name="Make sounds").get_attribute("aria-disabled") == "true"
    make.get_by_role("button", name="Make sounds").dispatch_event("click")
    page.wait_for_timeout(100)
    assert len(waiting) == 1
    waiting[0].continue_()
    make.get_by_text("4 sounds of kick.").wait_for()
    assert make.locator(".results").get_attribute("aria-busy") == "false"
    assert make.get_by_role("button", name="Make sounds").get_attribute("aria-disabled") is None


def test_the_keyboard_is_enough(page, service, kick):
    def focus():
        return page.evaluate("[document.activeElement.name || document.activeElement.innerText, "
                             "getComputedStyle(document.activeElement).outlineStyle]")  # fmt: skip

    def tab_to(name):
        page.keyboard.press("Tab")
        assert focus() == [name, "solid"]  # and it can be seen

    tab_to("class")
    page.keyboard.press("ArrowDown")
    tab_to("seed")
    page.keyboard.type("2")
    tab_to("n")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    page.get_by_text("1 sound of snare <b>.").wait_for()
    assert bytes_of(page, page.locator("#make audio")) == wav_of(service, "snare <b>", 2)
    tab_to("Make sounds")
    page.keyboard.press("Space")
    page.get_by_text("Making 1 sound").or_(page.get_by_text("1 sound of snare <b>.")).wait_for()
    assert focus()[0] == "Make sounds"  # busy or not
    page.locator("[name=to-seed]").focus()
    tab_to("n")
    tab_to("Morph")
    page.keyboard.press("Enter")
    page.get_by_text("Move the slider").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "position"
    page.keyboard.press("End")
    assert bytes_of(page, page.locator("#morph audio")) == wav_of(service, "snare <b>", 1)
    page.wait_for_function("() => document.querySelector('#morph audio').played.length > 0")
    with page.expect_file_chooser() as chooser:
        page.locator("#file input").focus()
        page.keyboard.press("Enter")
    chooser.value.set_files(kick)
    page.locator("#file .status").get_by_text("Spectrogram of").wait_for()


CONTRASTS = """() => {
  const level = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = part => { const { backgroundColor: colour } = getComputedStyle(part);
    return colour.endsWith(", 0)") ? behind(part.parentElement) : colour };
  return [...document.querySelectorAll("h1, h2, p, label, legend, button, select, input, code, figcaption, a")]
    .map(part => [level(getComputedStyle(part).color), level(behind(part))].sort((a, b) => a - b))
    .map(([low, high]) => (high + 0.05) / (low + 0.05));
}"""  # of text and what is behind it, by the formula of WCAG 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_small_screen_and_can_be_read_in_both_colour_schemes(browser, service, kick, scheme, tmp_path):
    with open_page(browser, service, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        for name, done in (("make", "4 sounds"), ("morph", "9 sounds"), ("vary", "4 sounds"), ("steer", "(seed 0).")):
            page.locator(f"#{name} form button").first.click()
            page.locator(f"#{name} .status").get_by_text(done).wait_for()
        page.locator("#make").get_by_role("button", name="Keep").first.click()
        page.locator("#kept figure").wait_for()
        page.locator("#own input").set_input_files(kick)
        page.locator("#own .status").get_by_text("nearest to").wait_for()
        page.locator("#file input").set_input_files(kick)
        page.locator("#file .status").get_by_text("Spectrogram of").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        edges = "parts => Math.max(...parts.map(part => part.getBoundingClientRect().right))"
        assert page.locator("main *:visible").evaluate_all(edges) <= 360
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 30 and min(contrasts) >= 4.5
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, brightness.removeprefix("rgb(").rstrip(")").split(","))) < 300) == (scheme == "dark")
        if folder := os.environ.get("SHOTS"):  # to look at
            page.screenshot(path=f"{folder}/360_{scheme}.png", full_page=True)


def test_without_a_checkpoint_it_draws_files_and_says_how_to_start_with_one(browser, kick, tmp_path):
    with running_service(tmp_path) as address, open_page(browser, address) as page:
        assert page.locator("#make").is_hidden() and page.locator("#morph").is_hidden()
        assert "ckpt_path=" in page.locator("#start").inner_text()
        assert page.locator("#trouble").inner_text() == ""
        page.locator("#file input").set_input_files(kick)
        page.locator("#file .status").get_by_text("Spectrogram of").wait_for()
        assert pictures_of(page.locator("#file")) == [[1024, 256]]


def test_the_page_is_small_and_asks_no_other_host():
    files = sorted((ROOT / "specgan" / "server" / "web").iterdir())
    assert {path.suffix for path in files} == {".html", ".css", ".js"}
    text = "".join(path.read_text() for path in files)
    assert text.count("\n") < 700
    assert "//" not in text.replace("// ", "")
