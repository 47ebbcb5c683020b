"""The clients in examples/: each runs, with the service and without, if its interpreter is installed."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
from checkpoints import save_checkpoint
from runs import ROOT
from services import QUICK, running_service

from specgan.audio import save_wav
from specgan.data.drums import drum

CLASSES = ["kick", "snare <b>", "7"]
EXAMPLES = ROOT / "examples"
COMMAND_LINE = {"SPECGAN_DIR": str(ROOT), "SPECGAN_PYTHON": sys.executable}
NOBODY = {"SPECGAN_URL": "http://127.0.0.1:9"}
TRIES = {"php": ["php", EXAMPLES / "laravel" / "try.php"], "ruby": ["ruby", EXAMPLES / "rails" / "try.rb"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, f"ckpt_path={save_checkpoint(folder / 'best.ckpt', CLASSES)}", *QUICK) as address:
        yield {"SPECGAN_URL": address}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A kick under a name that a shell or Hydra would trip over, and a file that is none."""
    folder = tmp_path_factory.mktemp("so=unds, $(touch x) ${y}; 'z'")
    save_wav(folder / "kick.wav", drum("kick", seed=0, sample_rate=16000), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF and nothing that follows from it")
    return folder


@pytest.fixture
def temporary(tmp_path):
    """The temporary folder of the client: empty again after each test, whatever happened in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    end = time.monotonic() + 20
    while list(folder.iterdir()) and time.monotonic() < end:  # a server may still be tidying up
        time.sleep(0.05)
    assert list(folder.iterdir()) == []


def environment(settings, temporary):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SPECGAN_")}
    return {**kept, "TMPDIR": str(temporary), **settings}


def require(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def size_of_picture(url):
    """(height, width) of the PNG at an address, which may be the PNG itself."""
    png = (
        urlopen(url).read() if url.startswith("http") else base64.b64decode(url.removeprefix("data:image/png;base64,"))
    )
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape[:2]


def require_error(content, *, error, words):
    assert content["success"] is False
    assert content["error"] == error
    assert words in content["message"]
    assert "/" not in content["message"].replace("http://", "")  # no path of the server's


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.php")) + sorted(EXAMPLES.rglob("*.rb")), ids=lambda p: p.name)
def test_every_php_and_ruby_file_is_well_formed(path):
    command = ["php", "-l"] if path.suffix == ".php" else ["ruby", "-wc"]
    require(command[0])
    done = subprocess.run([*command, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr


def attempt(language, settings, temporary, *arguments):
    """What the service class answers without its framework, and whether it says so in the exit code."""
    require(language)
    if language == "php" and "curl" not in subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split():
        pytest.skip("needs PHP's curl extension")
    command = [*map(str, TRIES[language]), *map(str, arguments)]
    done = subprocess.run(command, env=environment(settings, temporary), capture_output=True, text=True, timeout=300)
    answer = json.loads(done.stdout)
    assert done.returncode == (0 if answer["success"] else 1), done.stderr
    return answer


@pytest.mark.parametrize("language", TRIES)
def test_php_and_ruby_draw_and_make_sounds_with_the_service(language, service, sounds, temporary):
    drawn = attempt(language, service, temporary, "draw", sounds / "kick.wav")
    assert drawn["spectrogram_url"].startswith(service["SPECGAN_URL"] + "/")
    assert size_of_picture(drawn["spectrogram_url"]) == (256, 1024)
    made = attempt(language, service, temporary, "make", CLASSES[1], 2, 7)["sounds"]
    assert [(sound["class"], sound["seed"]) for sound in made] == [(CLASSES[1], 7), (CLASSES[1], 8)]
    assert urlopen(made[0]["audio_url"]).read().startswith(b"RIFF")
    assert size_of_picture(made[0]["spectrogram_url"]) == (32, 32)


@pytest.mark.parametrize("language", TRIES)
def test_php_and_ruby_pass_on_what_the_service_says_is_wrong(language, service, sounds, temporary):
    broken = attempt(language, service, temporary, "draw", sounds / "broken.wav")
    assert broken["success"] is False and broken["error"] and broken["message"]
    assert CLASSES[0] in attempt(language, service, temporary, "make", "gong")["message"]  # those that there are
    require_error(attempt(language, NOBODY, temporary, "make", "kick"), error="no_answer", words="does not answer")


@pytest.mark.parametrize("language", TRIES)
def test_php_and_ruby_draw_by_the_command_line(language, sounds, temporary):
    drawn = attempt(language, COMMAND_LINE, temporary, "draw", sounds / "kick.wav")
    assert size_of_picture(drawn["spectrogram_url"]) == (256, 1024)
    broken = attempt(language, COMMAND_LINE, temporary, "draw", sounds / "broken.wav")
    require_error(broken, error="not_audio", words="The upload")


@pytest.mark.parametrize("language", TRIES)
def test_php_and_ruby_say_what_is_not_set_up_and_keep_the_time(language, sounds, temporary):
    def draw(**settings):
        return attempt(language, {**COMMAND_LINE, **settings}, temporary, "draw", sounds / "kick.wav")

    require_error(draw(TIME_LIMIT_S="0.05"), error="time_limit", words="longer than 0.05 s")
    require_error(draw(SPECGAN_DIR=""), error="not_set_up", words="SPECGAN_DIR")
    require_error(draw(SPECGAN_PYTHON="no-such-python"), error="not_drawn", words="")
    require_error(draw(SPECGAN_DIR=str(EXAMPLES)), error="not_drawn", words="log")  # preprocess.py is not there
    made = attempt(language, COMMAND_LINE, temporary, "make", "kick")
    require_error(made, error="no_service", words="SPECGAN_URL")


@pytest.fixture(scope="module")
def express(tmp_path_factory):
    """A copy of the Express example with what it needs installed."""
    require("node", "npm")
    folder = tmp_path_factory.mktemp("express") / "express"
    shutil.copytree(EXAMPLES / "express", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("needs the npm registry, which does not answer")
    if done.returncode:
        pytest.skip(f"needs the npm registry: {done.stderr[-300:]}")
    return folder


@contextmanager
def running_express(folder, settings, temporary):
    env = environment({"PORT": "0", "MAX_UPLOAD_MB": "1", **settings}, temporary)
    server = subprocess.Popen(["node", "server.js"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


BOUNDARY = "part-of-a-form"
JSON, FORM = "application/json", f"multipart/form-data; boundary={BOUNDARY}"


def form(data, field="audio_file", name="x.wav"):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(address, path, body, kind=FORM):
    connection = HTTPConnection(urlsplit(address).netloc, timeout=300)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content


@pytest.mark.parametrize("way", ["service", "command line"])
def test_express_draws_an_upload_and_refuses_broken_and_large_ones(way, express, sounds, temporary, request):
    settings = request.getfixturevalue("service") if way == "service" else COMMAND_LINE
    with running_express(express, settings, temporary) as address:
        name = "../../$(touch evil); x=${y}.wav"
        status, drawn = post(address, "/spectrogram", form((sounds / "kick.wav").read_bytes(), name=name))
        assert (status, drawn["success"]) == (200, True)
        assert size_of_picture(drawn["spectrogram_url"]) == (256, 1024)
        status, broken = post(address, "/spectrogram", form((sounds / "broken.wav").read_bytes()))
        assert status in (400, 415)
        assert broken["success"] is False and broken["message"] and broken["error"]
        status, large = post(address, "/spectrogram", form(bytes(2**20 + 1)))
        assert status == 413
        require_error(large, error="too_large", words="larger than 1 MB")


def test_express_refuses_what_is_no_upload(express, temporary):
    with running_express(express, COMMAND_LINE, temporary) as address:
        for body, kind in ((b"{}", JSON), (form(b"x", field="other"), FORM), (b"no form", FORM), (b"", FORM)):
            status, content = post(address, "/spectrogram", body, kind)
            assert status == 400 and content["success"] is False and content["message"] and content["error"]
        status, content = post(address, "/sounds", b"{no json", JSON)
        assert status == 400 and content["success"] is False and content["error"]
        assert post(address, "/sounds", b'{"class": "kick"}', JSON)[0] == 501


def test_express_makes_sounds_with_the_service(express, service, temporary):
    with running_express(express, service, temporary) as address:
        status, made = post(address, "/sounds", json.dumps({"class": "kick", "n": 2, "seed": 7}), JSON)
        assert (status, made["success"]) == (200, True)
        assert [(sound["class"], sound["seed"]) for sound in made["sounds"]] == [("kick", 7), ("kick", 8)]
        assert urlopen(made["sounds"][1]["audio_url"]).read().startswith(b"RIFF")
        status, unknown = post(address, "/sounds", b'{"class": "gong"}', JSON)
        assert status == 400 and CLASSES[0] in unknown["message"]
    with running_express(express, NOBODY, temporary) as address:
        status, content = post(address, "/sounds", b'{"class": "kick"}', JSON)
        assert status == 502
        require_error(content, error="no_answer", words="does not answer")


def test_express_keeps_the_time(express, sounds, temporary):
    with running_express(express, {**COMMAND_LINE, "TIME_LIMIT_S": "0.05"}, temporary) as address:
        status, content = post(address, "/spectrogram", form((sounds / "kick.wav").read_bytes()))
        assert status == 504
        require_error(content, error="time_limit", words="longer than 0.05 s")


def test_express_forgets_an_upload_whose_sender_goes_away(express, temporary):
    with running_express(express, COMMAND_LINE, temporary) as address:
        connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.putrequest("POST", "/spectrogram")
        connection.putheader("Content-Type", FORM)
        connection.putheader("Content-Length", "900000")
        connection.endheaders(form(bytes(100_000))[:100_000])
        end = time.monotonic() + 20
        while not any(temporary.rglob("upload")) and time.monotonic() < end:
            time.sleep(0.02)
        assert any(temporary.rglob("upload"))
        connection.close()
        end = time.monotonic() + 20
        while list(temporary.iterdir()) and time.monotonic() < end:
            time.sleep(0.05)
        assert list(temporary.iterdir()) == []  # while the server still runs
        assert post(address, "/sounds", b'{"class": "kick"}', JSON)[0] == 501  # as it does
