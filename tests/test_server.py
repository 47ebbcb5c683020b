"""The service over real HTTP: what it answers, and that nothing sent to it stops it."""

import io
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch
from processes import processes_of_group, wait_until
from runs import ROOT, run
from services import QUICK, Service

from specgan.models.generators import DCGANGenerator, sample
from specgan.server.limits import Limits

# What only the tests need is imported in them: workers import this module for `marked`.

CLASSES = ["7", "kick", "a/b é"]
UPLOAD, SENT = "/api/audio/generate-spectrogram", "/api/sounds"
LIMITS = Limits(
    max_upload_mb=1,
    max_duration_s=20,
    upload_timeout_s=60,
    decode_timeout_s=60,
    max_memory_mb=512,
    max_jobs=2,
    max_waiting=16,
    max_wait_s=60,
    keep_s=600,
    max_kept_mb=100,
)


# --- sounds


def tone(n_channels=1, rate=22050, seconds=0.5, level=0.5):
    t = np.arange(round(rate * seconds)) / rate
    return np.stack([level * np.sin(2 * np.pi * 440 * (c + 1) * t) for c in range(n_channels)], axis=1)


def encoded(format="WAV", *, subtype=None, rate=22050, **settings):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(rate=rate, **settings), rate, format=format, subtype=subtype)
    return buffer.getvalue()


def m4a():
    from encoded import by_ffmpeg

    return by_ffmpeg("mp4", "aac", rate=48000)


SOUNDS = {"wav": encoded, "mp3": partial(encoded, "MP3"), "m4a": m4a}  # one of each decoder


# --- services


@contextmanager
def service_of(app):
    """The address of a service in this process."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def app_service(folder, *, sounds=None, **limits):
    """As `service_of`, with a decoder that does what a file says."""
    from specgan.server.app import make_app
    from specgan.server.workers import start_server

    start_server()
    with service_of(make_app(limits=replace(LIMITS, **limits), folder=folder, sounds=sounds, convert=marked)) as url:
        yield url


def marked(upload, wav, png, **settings):
    """What a hostile file could make a decoder do, by its first word."""
    word, _, rest = upload.read_bytes().partition(b" ")
    wav.with_name(".partial-wav").write_bytes(b"left behind by what is killed")
    if word == b"hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            time.sleep(10)
    elif word == b"eat":
        eaten = []
        while True:
            eaten.append(torch.ones(2**22) if rest == b"tensors" else bytearray(2**24))
    elif word == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == b"bug":
        raise KeyError("a bug")
    elif word == b"wait":
        wait_until(Path(rest.decode()).exists)
    wav.write_bytes(b"RIFF")
    png.write_bytes(b"PNG")
    return ""


def few_steps(path, trained, ckpt_path):
    """A short training, in the place of `specgan.server.training.train_into`."""
    import pickle

    from specgan.latent.fitting import fit_encoder
    from specgan.latent.kept import save_encoder

    trained = pickle.loads(trained)
    save_encoder(fit_encoder(trained, n_steps=2)[0], trained, path)
    return ""


def no_steps(path, trained, ckpt_path):
    raise KeyError("a bug")


@pytest.fixture(scope="module")
def ckpt_path(tmp_path_factory):
    from checkpoints import save_checkpoint

    from specgan.latent.kept import train_encoder
    from specgan.models.trained import TrainedGenerator

    path = save_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt", CLASSES)
    train_encoder(TrainedGenerator.load(path), path, n_steps=5)
    return path


@pytest.fixture(scope="module")
def service(ckpt_path, tmp_path_factory):
    limits = ["limits.max_upload_mb=1", "limits.max_duration_s=20", "limits.decode_timeout_s=60"]
    service = Service(tmp_path_factory.mktemp("service"), f"ckpt_path={ckpt_path}", *QUICK, *limits)
    yield service
    service.process.kill()


@pytest.fixture
def http(service):
    import httpx

    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


def send(url, content, *, name="sound.wav", field="audio_file", path=UPLOAD, **fields):
    import httpx

    return httpx.post(url + path, files={field: (name, content)}, data=fields, timeout=120)


def jobs(folder):
    return list(folder.glob("job-*"))


def failure(answer):
    """Checks what all errors have in common, and returns the message."""
    content = answer.json()
    assert set(content) == {"success", "message", "error"}
    assert content["success"] is False
    assert re.fullmatch("[a-z_]+", content["error"])
    return content["message"]


# --- sent files


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_sound_of_any_format_is_drawn_and_can_be_heard_whatever_it_is_called(kind, service, http, tmp_path):
    from specgan.audio import load_audio
    from specgan.tasks.render import render

    content = SOUNDS[kind]()
    answer = send(service.url, content, name="holiday.txt")
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["success"] is True
    (tmp_path / "sound").write_bytes(content)
    picture = http.get(made["spectrogram_url"])
    assert picture.content == render(tmp_path / "sound")
    sound = http.get(made["audio_url"])
    (tmp_path / "sound.wav").write_bytes(sound.content)
    heard, rate = load_audio(tmp_path / "sound.wav")
    sent, sent_rate = load_audio(tmp_path / "sound")
    assert rate == sent_rate
    torch.testing.assert_close(heard, sent, atol=1e-4, rtol=0)
    for file, kind_of in ((picture, "image/png"), (sound, "audio/wav")):
        assert file.headers["content-type"] == kind_of
        assert file.headers["x-content-type-options"] == "nosniff"
        assert re.fullmatch(r"/files/[\w-]{32}\.(wav|png)", urlsplit(str(file.url)).path)
    assert jobs(service.folder) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"n_channels": 2}, (22050, 2)),
        ({"n_channels": 3}, (22050, 1)),
        ({"rate": 96000}, (48000, 1)),
    ],
)
def test_the_wav_is_one_that_browsers_play(settings, expected, service, http, tmp_path):
    answer = send(service.url, encoded(**settings)).json()
    (tmp_path / "sound.wav").write_bytes(http.get(answer["audio_url"]).content)
    info = soundfile.info(tmp_path / "sound.wav")
    assert (info.samplerate, info.channels, info.subtype) == (*expected, "PCM_16")
    assert info.duration == pytest.approx(0.5)


def test_a_very_high_sample_rate_is_drawn_as_far_as_mel_bands_go(service, http, tmp_path):
    from specgan.tasks.render import render

    content = encoded(rate=192000)
    (tmp_path / "a.wav").write_bytes(content)
    answer = send(service.url, content)
    assert answer.status_code == 200, answer.text
    assert "it has 192000 Hz, drawn up to 48000 Hz" in answer.json()["message"]
    assert http.get(answer.json()["spectrogram_url"]).content == render(tmp_path / "a.wav", sample_rate=96000)


def png():
    import cv2

    return cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


WRONG = {
    "empty": (lambda: b"", 400, "is empty"),
    "text": (lambda: b"Dear service, this is a letter.\n" * 50, 415, "audio_file: not readable as audio"),
    "page": (lambda: b"<!doctype html><title>x</title>" * 9, 415, "audio_file: "),
    "picture": (png, 415, "audio_file: "),
    "zeros": (lambda: bytes(5000), 415, "audio_file: "),
    "headless": (lambda: encoded()[:20], 400, "audio_file: "),
    "no samples": (lambda: encoded(seconds=0), 400, "holds no samples"),
    "too long": (lambda: encoded("FLAC", rate=8000, seconds=20.1), 400, "more than 20 s"),
    "NaN": (lambda: encoded(subtype="FLOAT", level=np.nan), 400, "NaN or infinite"),
}


@pytest.mark.parametrize("path", [UPLOAD, SENT])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_sound_is_refused_with_the_reason(case, path, service):
    make, status, message = WRONG[case]
    answer = send(service.url, make(), path=path)
    assert answer.status_code == status, answer.text
    assert message in failure(answer)
    assert str(service.temporary) not in answer.text  # where files lie is no business of the client's
    assert jobs(service.folder) == []


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_sound_that_is_cut_short_is_drawn_as_far_as_it_goes_or_refused(kind, service):
    whole = SOUNDS[kind]()
    answer = send(service.url, whole[: len(whole) * 2 // 3])
    assert answer.status_code in (200, 400), answer.text
    if kind == "wav":
        assert "audio_file: damaged or cut short" in answer.json()["message"]
    elif answer.status_code == 400:
        assert failure(answer).startswith("audio_file: ")


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        ({"files": {"other": ("a.wav", b"x")}}, "no file in the field audio_file"),
        ({"files": {"other": ("a.wav", b"x")}, "data": {"audio_file": "text"}}, "no file in the field audio_file"),
        ({"data": {"audio_file": "text"}}, "the body is no form"),
        ({"json": {"audio_file": "text"}}, "the body is no form"),
        ({}, "the body is no form"),
        ({"files": [("audio_file", ("a", b"x")), ("audio_file", ("b", b"y"))]}, "Too many files"),
        ({"content": b"xyz", "headers": {"Content-Type": "multipart/form-data"}}, "Missing boundary"),
        ({"content": b"xyz", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "the form cannot be"),
        ({"content": b"--b--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "no file in"),
    ],
)
def test_a_form_without_the_file_is_refused(request_of, message, http, service):
    answer = http.post(UPLOAD, **request_of)
    assert answer.status_code == 400
    assert message in failure(answer)
    assert jobs(service.folder) == []


def in_pieces(content, *, size=2**16, pause_s=0.0):
    for start in range(0, len(content), size):
        yield content[start : start + size]
        time.sleep(pause_s)


def form(content):
    head = b'--b\r\nContent-Disposition: form-data; name="audio_file"; filename="a.wav"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("n_bytes", [2**20 + 1, 2**20 + 2**17, 3 * 2**20])
@pytest.mark.parametrize("path", [UPLOAD, SENT])
def test_a_file_that_is_too_large_is_refused(path, n_bytes, is_chunked, http, service):
    body = form(bytes(n_bytes))
    answer = http.post(path, content=in_pieces(body) if is_chunked else body, headers=FORM)
    assert answer.status_code == 413
    assert "larger than 1," in failure(answer)
    assert jobs(service.folder) == []


def test_a_file_of_just_the_most_is_taken(service):
    content = encoded(rate=48000, seconds=3)
    assert send(service.url, content + bytes(2**20 - len(content))).status_code == 200


@contextmanager
def connected(url):
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as connection:
        yield connection


def head(**headers):
    lines = [f"POST {UPLOAD} HTTP/1.1", "Host: x", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def test_an_upload_without_end_is_cut_off(service, http):
    with connected(service.url) as connection:
        connection.sendall(head(**{"Content-Type": FORM["Content-Type"], "Transfer-Encoding": "chunked"}))
        piece = form(bytes(2**16))[:-9]
        with pytest.raises(OSError):
            for _ in range(10_000):
                connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    assert jobs(service.folder) == []
    assert http.get("/healthz").status_code == 200


def test_a_length_that_is_smaller_than_the_file_gives_what_it_says(service, http):
    with connected(service.url) as connection:
        connection.sendall(head(**{"Content-Type": FORM["Content-Type"], "Content-Length": "200"}))
        connection.sendall(form(bytes(10_000))[:5000])
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert jobs(service.folder) == []
    assert http.get("/healthz").status_code == 200


def test_a_client_that_goes_away_leaves_nothing(service, http):
    with connected(service.url) as connection:
        connection.sendall(head(**{"Content-Type": FORM["Content-Type"], "Content-Length": "900000"}))
        connection.sendall(form(bytes(500_000))[:400_000])
        wait_until(lambda: jobs(service.folder))
    wait_until(lambda: not jobs(service.folder))
    assert send(service.url, encoded()).status_code == 200


def test_a_slow_client_is_served_and_holds_up_nobody(service, http):
    with ThreadPoolExecutor() as pool:
        body = form(encoded())
        pieces = in_pieces(body, size=len(body) // 20, pause_s=0.1)
        slow = pool.submit(http.post, UPLOAD, content=pieces, headers=FORM)
        wait_until(lambda: jobs(service.folder))
        assert send(service.url, encoded()).status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200


def test_an_upload_that_takes_too_long_is_cut_off(tmp_path):
    with app_service(tmp_path, upload_timeout_s=0.3) as url, connected(url) as connection:
        connection.sendall(head(**{"Content-Type": FORM["Content-Type"], "Content-Length": "1000"}))
        connection.sendall(form(bytes(500))[:400])
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert jobs(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"hang", 400, "took over 1 s and was stopped"),
        (b"eat tensors", 400, "takes over 100 MB and was stopped"),
        (b"eat bytes", 400, "takes over 100 MB and was stopped"),
        (b"crash", 400, "the decoder crashed on this file"),
        (b"bug", 500, "the service failed"),
    ],
)
def test_a_hostile_file_costs_its_worker_and_nothing_else(content, status, message, tmp_path):
    timeout_s = 1 if content == b"hang" else 60
    with app_service(tmp_path, decode_timeout_s=timeout_s, max_memory_mb=100) as url:
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(partial(send, url), [content] * 3))
        assert [answer.status_code for answer in answers] == [status] * 3
        assert all(message in failure(answer) for answer in answers)
        assert multiprocessing.active_children() == []
        assert jobs(tmp_path) == []
    with app_service(tmp_path) as url:
        assert send(url, b"fine").status_code == 200


def test_a_worker_that_cannot_start_is_no_fault_of_the_file(tmp_path, monkeypatch):
    from specgan.server import workers as server_jobs

    monkeypatch.setattr(server_jobs, "_START_S", 0)
    with app_service(tmp_path) as url:
        answer = send(url, b"fine")
    assert answer.status_code == 500
    assert failure(answer)


def test_more_than_the_service_takes_is_told_to_come_again(tmp_path):
    import httpx

    folder = tmp_path / "service"
    folder.mkdir()
    with app_service(folder, max_jobs=1, max_waiting=1) as url, ThreadPoolExecutor() as pool:
        taken = [pool.submit(send, url, f"wait {tmp_path}/go".encode()) for _ in range(2)]
        wait_until(lambda: httpx.get(url + "/healthz").json()["n_jobs"] == 2)
        refused = send(url, b"fine")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert "try again" in failure(refused)
        (tmp_path / "go").touch()
        assert [answer.result().status_code for answer in taken] == [200, 200]
        assert send(url, b"fine").status_code == 200
        assert httpx.get(url + "/healthz").json()["n_jobs"] == 0


def test_nobody_waits_for_ever(tmp_path):
    folder = tmp_path / "service"
    folder.mkdir()
    with app_service(folder, max_jobs=1, max_wait_s=0.2) as url, ThreadPoolExecutor() as pool:
        taken = pool.submit(send, url, f"wait {tmp_path}/go".encode())
        wait_until(lambda: list(folder.glob("job-*/.partial-wav")))
        assert send(url, b"fine").status_code == 503
        (tmp_path / "go").touch()
        assert taken.result().status_code == 200


# --- results


def test_results_go_after_their_time(tmp_path):
    import httpx

    with app_service(tmp_path, keep_s=1) as url:
        address = url + send(url, b"fine").json()["audio_url"]
        assert httpx.get(address).content == b"RIFF"
        wait_until(lambda: httpx.get(address).status_code == 404)
        assert "no such file" in failure(httpx.get(address))
        wait_until(lambda: not list(tmp_path.iterdir()))


def test_beyond_their_size_the_oldest_results_go_first(tmp_path):
    from specgan.server.limits import Results

    (tmp_path / "kept").mkdir()
    results, names = Results(tmp_path / "kept", keep_s=60, max_bytes=250), []
    for number in range(4):
        (tmp_path / "a.wav").write_bytes(bytes(100))
        names.append(results.add(tmp_path / "a.wav").removeprefix("/files/"))
        assert len(list((tmp_path / "kept").iterdir())) == min(2, number + 1)
    assert [results.find(name) is not None for name in names] == [False, False, True, True]
    assert len(set(names)) == 4


@pytest.mark.parametrize("name", ["x.wav", "..%2f..%2fetc%2fpasswd", "%2e%2e", "job-1%2fupload", "\u00e9"])
def test_no_other_file_can_be_fetched(name, http):
    assert http.get(f"/files/{name}").status_code == 404


# --- new sounds


@pytest.fixture(scope="module")
def drawn(ckpt_path, tmp_path_factory):
    """What generate.py makes of each class."""
    output = tmp_path_factory.mktemp("drawn")
    run("generate.py", f"ckpt_path={ckpt_path}", "n_samples=3", "seed=5", f"output={output}", *QUICK, cwd=output)
    return output


def test_classes_are_those_of_the_checkpoint(http):
    expected = {"success": True, "classes": CLASSES, "sample_rate": 8000, "duration_s": 32 * 128 / 8000}
    assert http.get("/api/classes").json() == expected


@pytest.mark.parametrize(("label", "folder"), [("kick", "kick"), ("7", "7"), ("a/b é", "a_b é")])
def test_sounds_and_pictures_are_those_of_generate_byte_by_byte(label, folder, drawn, http):
    answer = http.post("/api/generate", json={"class": label, "n": 3, "seed": 5})
    assert answer.status_code == 200, answer.text
    sounds = answer.json()["sounds"]
    assert [(sound["class"], sound["seed"]) for sound in sounds] == [(label, 5), (label, 6), (label, 7)]
    for sound in sounds:
        stem = drawn / folder / f"{folder}_{sound['seed']}"
        assert http.get(sound["audio_url"]).content == Path(f"{stem}.wav").read_bytes()
        assert http.get(sound["spectrogram_url"]).content == Path(f"{stem}.png").read_bytes()


def test_format_wav_answers_the_file_and_many_at_a_time_get_what_one_gets(drawn, http):
    def ask(seed):
        return http.post("/api/generate", json={"class": "kick", "seed": seed, "format": "wav"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [5, 6, 7] * 5))
    for seed, answer in zip([5, 6, 7] * 5, answers, strict=True):
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.content == (drawn / "kick" / f"kick_{seed}.wav").read_bytes()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"class": "gong"}, "class is 'gong'; one of 7, kick, a/b é"),
        ({}, "class: Field required"),
        ({"class": 7}, "class: "),
        ({"class": "kick", "n": 0}, "n: "),
        ({"class": "kick", "n": 65}, "n: "),
        ({"class": "kick", "n": "2"}, "n: "),
        ({"class": "kick", "n": True}, "n: "),
        ({"class": "kick", "n": 2, "format": "wav"}, "n is 2; format wav"),
        ({"class": "kick", "format": "mp3"}, "format: "),
        ({"class": "kick", "seed": -1}, "seed: "),
        ({"class": "kick", "seed": 2**70}, "seed: "),
        ({"class": "kick", "seeds": 1}, "seeds: "),
        ({"class": "kick", "\ud800": 1}, "the body: "),
        ([], "the body: "),
        (None, "the body: "),
        ({"from": {"class": "kick"}, "to": {"class": "gong"}}, "to.class is 'gong'; one of"),
        ({"from": {"class": "kick"}}, "to: Field required"),
        ({"from": {"class": "kick"}, "to": {"class": "7", "seed": -2}}, "to.seed: "),
        ({"from": {"class": "kick"}, "to": {"class": "7"}, "n": 1}, "n: "),
    ],
)
def test_impossible_wishes_are_refused_by_name(asked, message, http):
    path = "/api/morph" if asked and "from" in asked else "/api/generate"
    answer = http.post(path, content=json.dumps(asked), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert message in failure(answer)


def test_whole_numbers_may_be_written_with_a_point(http):
    answer = http.post("/api/generate", json={"class": "kick", "seed": 5.0, "n": 1.0})
    assert [sound["seed"] for sound in answer.json()["sounds"]] == [5]
    assert http.post("/api/generate", json={"class": "kick", "seed": 5.5}).status_code == 400


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 60_000, b"1" * 60_000])
def test_what_is_no_json_is_refused(content, http):
    answer = http.post("/api/generate", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert failure(answer)


def test_json_that_is_too_large_is_refused(http):
    answer = http.post("/api/generate", content=in_pieces(b" " * 100_000), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert failure(answer)


def test_morphing_begins_and_ends_with_the_sounds_it_goes_between(drawn, http):
    asked = {"from": {"class": "kick", "seed": 5}, "to": {"class": "7", "seed": 7}, "n": 5}
    answer = http.post("/api/morph", json=asked)
    assert answer.status_code == 200, answer.text
    sounds = answer.json()["sounds"]
    assert [sound["position"] for sound in sounds] == [0, 0.25, 0.5, 0.75, 1]
    for kind, suffix in (("audio_url", "wav"), ("spectrogram_url", "png")):
        files = [http.get(sound[kind]).content for sound in sounds]
        assert len(set(files)) == 5
        assert files[0] == (drawn / "kick" / f"kick_5.{suffix}").read_bytes()
        assert files[-1] == (drawn / "7" / f"7_7.{suffix}").read_bytes()


def test_a_network_that_cannot_morph_is_named(ckpt_path, tmp_path, monkeypatch):
    import httpx

    from specgan.server.sounds import SoundGenerator
    from specgan.vocoders.griffin_lim import GriffinLim

    monkeypatch.delattr(DCGANGenerator, "from_embedding")
    sounds = SoundGenerator(ckpt_path, vocoder=partial(GriffinLim, n_iter=0))
    with app_service(tmp_path, sounds=sounds) as url:
        answer = httpx.post(url + "/api/morph", json={"from": {"class": "7"}, "to": {"class": "kick"}})
    assert answer.status_code == 400
    assert "DCGANGenerator, which has no from_embedding" in failure(answer)


class Patient:
    """Makes no sound until it may; at most one at a time."""

    class_names = ("kick",)

    def __init__(self):
        self.may, self.n_at_work, self.most = threading.Event(), 0, 0

    def generate(self, label, seeds, folder):
        from specgan.audio import WavFacts
        from specgan.generation import SoundFiles

        self.n_at_work += 1
        self.most = max(self.most, self.n_at_work)
        assert self.may.wait(60)
        self.n_at_work -= 1
        made = SoundFiles(folder / "a.wav", folder / "a.png", WavFacts(1.0, 8000, 1, 0.5))
        made.wav.write_bytes(b"RIFF")
        made.png.write_bytes(b"PNG")
        return [made]


def test_the_service_answers_while_it_makes_a_sound(tmp_path):
    import httpx

    sounds = Patient()
    with app_service(tmp_path, sounds=sounds, max_waiting=2) as url, ThreadPoolExecutor() as pool:
        ask = partial(httpx.post, url + "/api/generate", json={"class": "kick"}, timeout=60)
        asked = [pool.submit(ask) for _ in range(3)]
        wait_until(lambda: httpx.get(url + "/healthz").json()["n_jobs"] == 3)
        assert send(url, b"fine").status_code == 200
        assert ask().status_code == 503
        sounds.may.set()
        assert [answer.result().status_code for answer in asked] == [200] * 3
    assert sounds.most == 1


# --- sounds to go on from


@pytest.fixture(scope="module")
def found(service):
    """The answer to a sent sound."""
    answer = send(service.url, encoded("FLAC", rate=48000, n_channels=2), name="C:\\\\my tone.flac", path=SENT)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_sent_sound_and_its_variations_are_those_of_generate_byte_by_byte(ckpt_path, found, http, tmp_path):
    from specgan.generation import generate
    from specgan.vocoders.griffin_lim import GriffinLim

    (tmp_path / "my tone.flac").write_bytes(encoded("FLAC", rate=48000, n_channels=2))
    vocoder = partial(GriffinLim, n_iter=2, n_inversion_iter=5)
    settings = {"like": tmp_path / "my tone.flac", "distance": 0.4, "n_samples": 2, "seed": 3}
    generate(ckpt_path, output=tmp_path / "out", label="all", vocoder=vocoder, device="cpu", **settings)
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.wav")}
    nearest = found["nearest"]
    assert http.get(nearest["audio_url"]).content == made["my tone_nearest.wav"]
    assert nearest["class"] in CLASSES and 0 < found["probability"] <= 1 and found["distance_db"] > 0
    asked = {"like": {"sound": nearest["sound"]}, "distance": 0.4, "n": 2, "seed": 3}
    varied = http.post("/api/vary", json=asked).json()["sounds"]
    for sound, seed in zip(varied, (3, 4), strict=True):
        assert http.get(sound["audio_url"]).content == made[f"my tone_0.4_{seed}.wav"]
        assert sound["origin"] == f"variation of my tone.flac, distance 0.4, seed {seed}"
    assert http.get(found["audio_url"]).content.startswith(b"RIFF")


def test_the_class_of_a_sent_sound_can_be_given(service, found):
    answer = send(service.url, encoded(), path=SENT, **{"class": "7"}).json()
    assert (answer["nearest"]["class"], answer["probability"]) == ("7", None)
    refused = send(service.url, encoded(), path=SENT, **{"class": "gong"})
    assert refused.status_code == 400 and "class is 'gong'; one of" in failure(refused)
    silent = send(service.url, encoded(level=0.0), path=SENT)
    assert silent.status_code == 400 and failure(silent).startswith("audio_file: is silent")


def test_variations_and_mixes_of_classes_are_sounds_to_go_on_from(drawn, http):
    kick = (drawn / "kick" / "kick_5.wav").read_bytes()
    (same,) = http.post("/api/vary", json={"like": {"class": "kick", "seed": 5}, "distance": 0, "n": 1}).json()[
        "sounds"
    ]
    assert http.get(same["audio_url"]).content != kick  # the same samples, and another title
    morphed = http.post("/api/morph", json={"from": {"sound": same["sound"]}, "to": {"class": "kick"}, "n": 2}).json()
    assert http.get(morphed["sounds"][0]["audio_url"]).content == http.get(same["audio_url"]).content
    one = http.post("/api/steer", json={"like": {"classes": {"kick": 3}, "seed": 5}}).json()
    assert http.get(one["sound"]["audio_url"]).content == kick
    mix = http.post("/api/steer", json={"like": {"classes": {"kick": 3, "7": 1}, "seed": 5}}).json()["sound"]
    assert (mix["class"], mix["origin"]) == ("kick 0.75 + 7 0.25", "kick 0.75 + 7 0.25, seed 5")
    other = {"sound": same["sound"], "classes": {"7": 1}}
    assert http.post("/api/steer", json={"like": other}).json()["sound"]["class"] == "7"


def test_a_sound_is_moved_by_what_its_class_has(http):
    like = {"class": "kick", "seed": 5}
    directions = http.post("/api/directions", json={"like": like}).json()["directions"]
    refusals = {each["name"]: each["refusal"] for each in directions}
    able = next(name for name, refusal in refusals.items() if refusal is None)
    unable = next(name for name, refusal in refusals.items() if refusal)
    answer = http.post("/api/steer", json={"like": like, "move": {able: 1}}).json()
    assert answer["moved"][able] > 0.2 and f"{able} +1" in answer["sound"]["origin"]
    refused = http.post("/api/steer", json={"like": like, "move": {unable: 1}})
    assert refused.status_code == 409 and refusals[unable] in failure(refused)


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("vary", {"like": {"sound": "x"}}, "like.sound is 'x': not known"),
        ("vary", {"like": {"sound": "x", "class": "kick"}}, "like: give one of class, classes, sound"),
        ("vary", {"like": {}}, "like: give one of class, classes, sound"),
        ("vary", {"like": {"class": ""}}, "like.class is ''; one of"),
        ("vary", {"like": {"class": "kick"}, "distance": 1.1}, "distance: "),
        ("steer", {"like": {"classes": {"gong": 1}}}, "like.classes is 'gong'; one of"),
        ("steer", {"like": {"classes": {"kick": 0}}}, "like.classes.kick: "),
        ("steer", {"like": {"classes": {}}}, "like.classes: "),
        ("steer", {"like": {"class": "kick"}, "move": {"warmth": 1}}, "move has no warmth; there are brightness"),
        ("steer", {"like": {"class": "kick"}, "move": {"length": 4.1}}, "move.length: "),
        ("morph", {"from": {"class": "kick"}, "to": {"sound": "y"}}, "to.sound is 'y': not known"),
    ],
)
def test_impossible_starts_and_moves_are_refused_by_name(path, asked, message, http):
    answer = http.post(f"/api/{path}", json=asked)
    assert answer.status_code == (404 if "not known" in message else 400), answer.text
    assert message in failure(answer)


def untrained_service(tmp_path):
    from checkpoints import save_checkpoint

    from specgan.server.app import make_app
    from specgan.server.sounds import SoundGenerator
    from specgan.server.workers import start_server
    from specgan.vocoders.griffin_lim import GriffinLim

    start_server()
    sounds = SoundGenerator(save_checkpoint(tmp_path / "a.ckpt", CLASSES), vocoder=partial(GriffinLim, n_iter=0))
    (tmp_path / "files").mkdir()
    return service_of(make_app(limits=LIMITS, folder=tmp_path / "files", sounds=sounds))


def test_the_encoder_is_trained_when_a_sound_is_first_sent(tmp_path, monkeypatch):
    monkeypatch.setattr("specgan.server.training.train_into", few_steps)
    with untrained_service(tmp_path) as url:
        assert send(url, encoded(level=0.0), path=SENT).status_code == 400  # before that
        first = send(url, encoded(), path=SENT)
        assert (first.status_code, first.json()["error"]) == (503, "encoder_training")
        assert "python train.py stage=encoder ckpt_path=" in failure(first) and int(first.headers["retry-after"]) > 0
        wait_until(lambda: send(url, encoded(), path=SENT).status_code == 200)
    assert list((tmp_path / "files").glob("*.safetensors")) == []


def test_an_encoder_that_cannot_be_trained_is_an_error_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("specgan.server.training.train_into", no_steps)
    with untrained_service(tmp_path) as url:
        answers = []
        wait_until(lambda: answers.append(send(url, encoded(), path=SENT)) or answers[-1].status_code == 500)
        assert "could not be trained" in failure(answers[-1])
        assert send(url, encoded(), path=SENT).json()["error"] == "encoder_training"


def test_the_points_that_were_not_used_for_longest_are_forgotten(monkeypatch):
    from specgan.latent import Point
    from specgan.server.points import KeptPoints

    monkeypatch.setattr("specgan.server.points.MOST", 2)
    points = KeptPoints()
    a, b = (points.add(Point(torch.zeros(1), torch.zeros(1), "kick", word)) for word in "ab")
    assert points.find(a).origin == "a"
    c = points.add(Point(torch.zeros(1), torch.zeros(1), "kick", "c"))
    assert [points.find(name) is not None for name in (a, b, c)] == [True, False, True]
    assert len({a, b, c}) == 3 and min(map(len, (a, b, c))) > 20


# --- morphing itself


def morph(generator, labels, seeds, *, n_positions):
    """Draws what lies between two sounds of classes that are called 0, 1, 2."""
    from specgan.latent import LatentSpace, class_points
    from specgan.models.trained import TrainedGenerator

    space = LatentSpace(TrainedGenerator(generator, None, None, ["0", "1", "2"], 0))
    start, end = (class_points(space.trained, str(label), [seed])[0] for label, seed in zip(labels, seeds, strict=True))
    return space.draw(space.morph(start, end, n_positions=n_positions))


def network(**settings):
    torch.manual_seed(1)
    settings = {"n_classes": 3, "n_mels": 16, "n_frames": 16, "latent_dim": 8, "width": 16} | settings
    return DCGANGenerator(**settings)


@pytest.mark.parametrize("settings", [{}, {"embedding_dim": None, "norm": "batch"}, {"latent_dim": 1}])
@pytest.mark.parametrize("n_positions", [2, 5, 20])
def test_the_ends_of_a_morph_are_samples_bit_by_bit(settings, n_positions):
    generator = network(**settings).train()
    way = morph(generator, (0, 2), (5, 6), n_positions=n_positions)
    assert way.shape == (n_positions, 1, 16, 16)
    assert way.isfinite().all()
    assert way[0].equal(sample(generator, [0], [5])[0])
    assert way[-1].equal(sample(generator, [2], [6])[0])
    assert generator.training


def test_noise_moves_along_an_arc_and_the_class_along_a_line():
    class Seen(torch.nn.Module):
        latent_dim = 64

        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding.from_pretrained(torch.tensor([[0.0, 2.0], [4.0, 0.0]]), freeze=False)

        def from_embedding(self, z, embedding):
            return torch.cat([z, embedding], dim=1)

    z, embedding = morph(Seen(), (0, 1), (5, 6), n_positions=5).split([64, 2], dim=1)
    torch.testing.assert_close(embedding[:, 0], torch.tensor([0.0, 1, 2, 3, 4]))
    torch.testing.assert_close(embedding[:, 1], torch.tensor([2.0, 1.5, 1, 0.5, 0]))
    start, end = z[0].double(), z[-1].double()
    angle = torch.acos(torch.nn.functional.cosine_similarity(start, end, dim=0))
    middle = (start + end) / (2 * torch.cos(angle / 2))  # the half of the arc, by hand
    torch.testing.assert_close(z[2].double(), middle, atol=1e-6, rtol=0)
    assert z.norm(dim=1).min() > 0.98 * min(start.norm(), end.norm())  # a line would go through 0.7 of it


def test_a_morph_between_one_noise_and_itself_keeps_it():
    generator = network()
    way = morph(generator, (1, 1), (5, 5), n_positions=3)
    torch.testing.assert_close(way[1], sample(generator, [1], [5])[0])
    with pytest.raises(ValueError, match="n_positions is 1; at least 2"):
        morph(generator, (1, 1), (5, 5), n_positions=1)
    with pytest.raises(ValueError, match="Linear, which has no from_embedding"):
        morph(torch.nn.Linear(2, 2), (1, 1), (5, 5), n_positions=3)


# --- the service as a whole


def test_the_page_is_served(http, service):
    page = http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.content == (ROOT / "specgan" / "server" / "web" / "index.html").read_bytes()
    for name in re.findall(r'(?:href|src)="([\w.]+\.(?:css|js))"', page.text):
        assert http.get(f"/{name}").content == (ROOT / "specgan" / "server" / "web" / name).read_bytes()
    assert http.get("/nowhere").status_code == 404
    assert http.get("/docs").status_code == 404  # FastAPI's loads scripts of others


def test_wrong_methods_are_refused_and_health_is_told(http):
    assert failure(http.get(UPLOAD)) and http.get(UPLOAD).status_code == 405
    assert http.delete("/api/generate").status_code == 405
    health = http.get("/healthz").json()
    assert (health["status"], health["makes_sounds"], health["n_jobs"]) == ("ok", True, 0)


def test_the_openapi_document_is_kept(service, tmp_path):
    """All routes, with what it says they take and with what it says they do not."""
    # What is a sound, no schema can say: bytes that one allows are refused all the same.
    (tmp_path / "schemathesis.toml").write_text(
        "".join(
            f"[[operations]]\ninclude-path = '{path}'\nchecks.positive_data_acceptance.enabled = false\n"
            for path in (UPLOAD, SENT)
        )
    )
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "Tested: 10" in done.stdout, done.stdout


def test_every_route_has_examples_and_says_what_its_errors_are(http):
    document = http.get("/openapi.json").json()
    posts = {UPLOAD: {400, 408, 413, 415, 500, 503}, "/api/generate": {400, 404, 413, 500, 503}}
    posts["/api/morph"] = posts["/api/vary"] = posts["/api/directions"] = posts["/api/generate"]
    posts["/api/steer"] = posts["/api/generate"] | {409}
    posts[SENT] = posts[UPLOAD] | {404}
    for path, statuses in posts.items():
        answers = document["paths"][path]["post"]["responses"]
        assert {int(status) for status in answers} == {200, *statuses}
    for name in ("Generate", "Morph", "Vary", "Steer", "AskedDirections"):
        (example,) = document["components"]["schemas"][name]["examples"]
        answer = http.post(f"/api/{name.removeprefix('Asked').lower()}", json=example)
        assert answer.status_code == 200, answer.text


def test_without_a_checkpoint_it_draws_files_and_says_how_to_start_with_one(tmp_path):
    import httpx

    service = Service(tmp_path, "task/look@picture=noise_gated")
    try:
        for answer in (
            httpx.get(service.url + "/api/classes"),
            httpx.post(service.url + "/api/generate", json={"class": "kick"}),
            httpx.post(service.url + "/api/morph", json={"from": {"class": "a"}, "to": {"class": "b"}}),
            httpx.post(service.url + "/api/vary", json={"like": {"class": "a"}}),
            send(service.url, encoded(), path=SENT),
        ):
            assert answer.status_code == 404
            assert "ckpt_path=<run>/checkpoints/best.ckpt" in failure(answer)
        content = encoded()
        picture = httpx.get(service.url + send(service.url, content).json()["spectrogram_url"]).content
        (tmp_path / "a.wav").write_bytes(content)
        run("preprocess.py", "task=render", "task/look=noise_gated", "input=a.wav", "output=a.png", cwd=tmp_path)
        assert picture == (tmp_path / "a.png").read_bytes()
        assert service.end(signal.SIGTERM) == 0
        assert list(service.temporary.glob("specgan-*")) == []
    finally:
        service.process.kill()


def test_ctrl_c_ends_it_at_once_with_its_workers_and_files(ckpt_path, tmp_path):
    service = Service(tmp_path, f"ckpt_path={ckpt_path}", *QUICK)
    try:
        with connected(service.url) as connection:  # an upload that is under way
            connection.sendall(head(**{"Content-Type": FORM["Content-Type"], "Content-Length": "900000"}))
            connection.sendall(form(bytes(500_000))[:400_000])
            wait_until(lambda: jobs(service.folder))
            os.killpg(service.pid, signal.SIGINT)  # as a terminal does
            assert service.process.wait(60) == 0
        assert list(service.temporary.iterdir()) == []
        assert "Traceback" not in service.log.read_text()
        wait_until(lambda: not processes_of_group(service.pid))
    finally:
        service.process.kill()


def broken(tmp_path):
    path = tmp_path / "broken.ckpt"
    torch.save({"state_dict": {}}, path)
    return path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (lambda home: [f"ckpt_path={broken(home)}"], r"broken\.ckpt: not a checkpoint of specgan's train\.py"),
        (lambda home: ["picture.cmap=nocolours"], "nocolours"),
        (lambda home: ["limits.max_memory_mb=1"], "max_memory_mb 1"),
        (lambda home: ["limits.max_jobs=0"], "max_jobs is 0; a whole number, at least 1"),
    ],
)
def test_what_it_cannot_start_with_is_said_and_the_exit_code_is_1(overrides, message, tmp_path):
    command = [sys.executable, "-m", "specgan.server", "port=0", *overrides(tmp_path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert list(tmp_path.glob("specgan-*")) == []
