"""A generator to a hub and back: the same sounds, nothing else of the training, and each fault by name."""

import json
import re
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from checkpoints import CLASSES, PARAMS, save_checkpoint
from fake_hub import TOKEN, Repository, running_hub
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import specgan
from specgan.generation import generate
from specgan.hub import MissingWeightsError
from specgan.latent.kept import encoder_path, load_encoder, train_encoder
from specgan.models.shared import SETTINGS_NAME, VOCODER_NAME, WEIGHTS_NAME
from specgan.models.trained import TrainedGenerator, is_vocoder, level_range_of
from specgan.server.sounds import SoundGenerator
from specgan.sharing import PushError, push
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.learned import Learned
from specgan.vocoders.refinement import Refiner

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the hub's client: pip install 'specgan[hub]'")

ROOT = Path(__file__).parents[1]
VOCODER = partial(GriffinLim, n_iter=2, n_inversion_iter=5)
PUSH = partial(push, repo="me/drums", data_license="cc0-1.0", vocoder=VOCODER, n_sounds=1)
NAMES = {"README.md", SETTINGS_NAME, WEIGHTS_NAME}


def figure(value, low, high, n=40):
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.fixture
def run_dir(tmp_path):
    """A measured run of Alice's, whose files name her folders."""
    run_dir = tmp_path / "home of alice" / "secret-run"
    (run_dir / "checkpoints").mkdir(parents=True)
    save_checkpoint(run_dir / "checkpoints" / "best.ckpt")
    dataset = str(run_dir.parent / "secret data" / "set")
    report = {
        "checkpoint": str(run_dir / "checkpoints" / "best.ckpt"),
        "dataset": dataset,
        "n_steps": 12,
        "class_names": CLASSES,
        "split": "test",
        "judge": {"test_accuracy": figure(0.9, 0.8, 0.95), "trusted": True},
        "rows": {
            "real": {"conditional_accuracy": figure(0.9, 0.8, 0.95)},
            "generated": {"conditional_accuracy": figure(0.75, 0.7, 0.8, n=60)},
        },
        "warnings": [f"The levels of {dataset} reach from -70 to -3.", "See /home/alice/secret/x.txt or C:\\alice\\y."],
    }
    (run_dir / "report.json").write_text(json.dumps(report))
    settings = {"choices": {"vocoder": "griffin_lim"}, "data": {"audio_dir": "/home/alice/secret-clips"}}
    (run_dir / "settings.json").write_text(json.dumps(settings))
    return run_dir


@pytest.fixture
def ckpt(run_dir):
    return run_dir / "checkpoints" / "best.ckpt"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, an empty cache, and nobody logged in."""
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


# --- there and back


def test_what_was_pushed_draws_the_same_from_the_hub_and_without_a_network_from_its_cache(
    logged_in, ckpt, tmp_path, monkeypatch
):
    PUSH(ckpt)
    pushed = logged_in.repositories["me/drums"]
    assert len(pushed.commits) == 2  # the empty one, and all files in one
    files = pushed.files()
    sounds = {"sounds/7/7_0.wav", "sounds/kick/kick_0.wav", "sounds/_._evil/_._evil_0.wav"}
    assert files.keys() == NAMES | sounds

    original, shared = (specgan.load(path, vocoder=VOCODER) for path in (ckpt, "hf://me/drums"))
    for label in CLASSES:
        assert torch.equal(original.draw(label, seed=7)[0], shared.draw(label, seed=7)[0])
    assert shared.trained.params == PARAMS
    assert (shared.trained.checkpoint, shared.trained.n_steps) == ("hf://me/drums", 12)
    assert encoder_path("hf://me/drums").parent == next(tmp_path.glob("cache/*/snapshots/*"))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logged_in.requests.clear()
    generate("hf://me/drums", label="kick", n_samples=1, seed=0, output=tmp_path / "drawn", vocoder=VOCODER)
    assert (tmp_path / "drawn/kick/kick_0.wav").read_bytes() == files["sounds/kick/kick_0.wav"]
    service = SoundGenerator("hf://me/drums", vocoder=VOCODER)
    (written,) = service.generate("kick", [0], tmp_path)
    assert written.wav.read_bytes() == files["sounds/kick/kick_0.wav"]
    assert not logged_in.requests

    train_encoder(shared.trained, "hf://me/drums", n_steps=1)
    assert load_encoder(shared.trained, encoder_path("hf://me/drums")) is not None
    assert SoundGenerator("hf://me/drums", vocoder=VOCODER).has_encoder


def test_a_downloaded_folder_is_a_checkpoint(logged_in, ckpt, tmp_path):
    PUSH(ckpt)
    folder = tmp_path / "mine"
    for name, content in logged_in.repositories["me/drums"].files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    loaded = specgan.load(folder, vocoder=VOCODER)
    assert torch.equal(loaded.draw("kick", seed=7)[0], specgan.load(ckpt, vocoder=VOCODER).draw("kick", seed=7)[0])
    assert loaded.trained.checkpoint == "mine"
    assert encoder_path(folder) == folder / "generator.encoder.safetensors"
    assert not is_vocoder(folder)


def test_a_revision_is_what_it_was_and_the_files_of_one_commit_stay_together(logged_in, ckpt, monkeypatch):
    PUSH(ckpt)
    repository = logged_in.repositories["me/drums"]
    first = repository.commits[-1][0]
    settings = json.loads(repository.files()[SETTINGS_NAME])
    download = huggingface_hub.hf_hub_download

    def pushed_meanwhile(repo, name, **how):
        path = download(repo, name, **how)
        if name == SETTINGS_NAME:
            repository.commit({WEIGHTS_NAME: b"other weights"})
        return path

    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub, "hf_hub_download", pushed_meanwhile)
        assert TrainedGenerator.load("hf://me/drums").n_steps == 12
    repository.commit({SETTINGS_NAME: json.dumps({**settings, "n_steps": 99}).encode()})
    assert TrainedGenerator.load("hf://me/drums").n_steps == 12  # of the cache
    assert TrainedGenerator.load(f"hf://me/drums@{first}").n_steps == 12


def test_the_vocoder_that_a_checkpoint_carries_goes_along(logged_in, tmp_path):
    torch.manual_seed(1)
    network = Refiner(PARAMS, width=8, n_blocks=1)
    trained = replace(TrainedGenerator.load(save_checkpoint(tmp_path / "x.ckpt")), vocoder=network.contents())
    names = trained.save(tmp_path / "shared")
    assert names == [SETTINGS_NAME, WEIGHTS_NAME, VOCODER_NAME]
    PUSH(tmp_path / "shared")
    drawn = [specgan.load(place).draw("kick", seed=3)[0] for place in (tmp_path / "shared", "hf://me/drums")]
    assert torch.equal(*drawn)
    held = TrainedGenerator.load("hf://me/drums").vocoder
    by_file = Learned(PARAMS, trained.level_range, path=tmp_path / "shared" / VOCODER_NAME)  # also by itself
    for weights in (held["weights"], by_file.held["weights"]):
        assert weights.keys() == network.contents()["weights"].keys()
        assert all(torch.equal(weights[name], value) for name, value in network.contents()["weights"].items())


def test_other_files_of_a_repository_stay(logged_in, ckpt):
    logged_in.repositories["me/drums"] = Repository(private=False)
    logged_in.repositories["me/drums"].commit({"LICENSE": b"mine", "README.md": b"old"})
    PUSH(ckpt, n_sounds=0)
    files = logged_in.repositories["me/drums"].files()
    assert files.keys() == {"LICENSE", *NAMES}
    assert files["LICENSE"] == b"mine"
    assert b"No sounds were uploaded" in files["README.md"]


# --- what is told


def test_nothing_tells_of_the_machine_that_it_was_trained_on(logged_in, ckpt, tmp_path):
    PUSH(ckpt)
    told = b"\n".join(logged_in.repositories["me/drums"].files().values()).lower()
    for secret in (b"alice", b"secret", b"best.ckpt", str(tmp_path).encode().lower()):
        assert secret not in told
    weights = logged_in.repositories["me/drums"].files()[WEIGHTS_NAME]
    (tmp_path / WEIGHTS_NAME).write_bytes(weights)
    from safetensors import safe_open

    with safe_open(tmp_path / WEIGHTS_NAME, "pt") as file:
        assert set(file.keys()) == TrainedGenerator.load(ckpt).network.state_dict().keys()  # no discriminator
        assert not file.metadata()


def test_the_card_has_the_figures_beside_real_ones_and_escapes_names(logged_in, ckpt):
    PUSH(ckpt)
    card = logged_in.repositories["me/drums"].files()["README.md"].decode()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "specgan",
        "license": "cc0-1.0",
        "tags": ["specgan", "audio", "audio-generation", "gan", "spectrogram"],
    }
    row = "| 75\xa0% (70 to 80\xa0%), n = 60 | 90\xa0% (80 to 95\xa0%), n = 40 | -15.0 points |"
    assert f"| Conditional accuracy (higher is better) {row}\n" in body
    assert "it classifies 90\xa0% of real test clips right" in body
    assert "went through the vocoder griffin\\_lim" in body
    assert "The levels of the data set reach from -70 to -3." in body
    assert f'<audio controls src="{logged_in.url}/me/drums/resolve/main/sounds/kick/kick_0.wav"></audio>' in body
    assert "(sounds/_._evil/_._evil_0.wav)" in body
    assert "ckpt_path=hf://me/drums label=7 n_samples" in body
    assert "8000 Hz, mono, up to 0.51 s" in body


def test_a_class_cannot_put_anything_into_the_card(tmp_path, capsys):
    names = ["<script>x</script>", "a|b", "```\n# x", "[x](http://y)"]
    (tmp_path / "x").mkdir()
    PUSH(save_checkpoint(tmp_path / "x" / "x.ckpt", names), dry_run=True)
    card = capsys.readouterr().out
    assert "\\<script\\>" in card and "<script>" not in card
    assert "a\\|b" in card and "\\[x\\](http" in card
    assert "\\`\\`\\` \\# x" in card
    assert "label=all n_samples" in card and "draw(sounds.class_names[0]" in card


@pytest.mark.parametrize("change", [None, {"n_steps": 11}, {"class_names": ["kick"]}])
def test_without_its_report_the_card_says_that_it_was_not_measured(change, run_dir, ckpt, capsys, caplog):
    path = run_dir / "report.json"
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    PUSH(ckpt, dry_run=True)
    card = capsys.readouterr().out
    assert "This generator was not measured" in card
    assert "points" not in card
    assert "not measured" in caplog.text and "stage=test" in caplog.text


def test_a_dry_run_lists_what_would_be_uploaded_and_contacts_nobody(hub, ckpt, tmp_path, capsys):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [
            f"ckpt_path='{ckpt}'",
            "repo=me/drums",
            "data_license=other",
            "data_license_name=Mine",
            "dry_run=true",
        ]
        cfg = compose("push", overrides=[*overrides, "vocoder.n_iter=2", "n_sounds=1"])
        instantiate(cfg.push, _convert_="all")()
    shown = capsys.readouterr().out
    assert {*re.findall(r"^ *[\d,]+  (\S+)$", shown, re.MULTILINE)} > NAMES
    size = ckpt.stat().st_size
    sizes = dict(reversed(line.split()) for line in re.findall(r"^ *[\d,]+  \S+$", shown, re.MULTILINE))
    assert 0 < int(sizes[WEIGHTS_NAME].replace(",", "")) < size
    assert "license: other\nlicense_name: Mine\n" in shown
    assert not hub.requests and not hub.repositories


# --- faults


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_license": None}, r"data_license is not given.*as you state it.*cc0-1\.0, cc-by-4\.0"),
        ({"data_license": "CC0"}, r"data_license is CC0; one of .*cc0-1\.0.*data_license=other data_license_name"),
        ({"data_license": "other"}, "data_license is other, and data_license_name is not given"),
        ({"data_license_name": "Mine"}, "data_license is cc0-1.0, and data_license_name is Mine"),
        *(({"repo": repo}, "repo is .*user/name") for repo in ("drums", "a/b/c", "me/a b", "me/..", "hf://me/x")),
        ({"n_sounds": -1}, "n_sounds is -1"),
    ],
)
def test_what_is_missing_or_wrong_is_named_before_anything_is_done(change, message, logged_in, ckpt):
    with pytest.raises(ValueError, match=message):
        PUSH(ckpt, **change)
    assert not logged_in.requests


def test_who_is_not_logged_in_is_told_how(hub, ckpt):
    with pytest.raises(PushError, match=r"not logged in.*hf auth login, or set HF_TOKEN"):
        PUSH(ckpt)
    assert not hub.requests


def test_what_the_hub_refuses_is_one_sentence_and_nothing_is_uploaded(logged_in, ckpt, monkeypatch):
    logged_in.repositories["me/public"] = Repository(private=False)

    def refused(message, **change):
        with pytest.raises(PushError, match=message) as caught:
            PUSH(ckpt, n_sounds=0, **change)
        assert "\n" not in str(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__  # what is shown
        assert not any(repository.files() for repository in logged_in.repositories.values())

    refused("you/drums: nothing was uploaded: your token may not write there; is you you", repo="you/drums")
    refused("me/public exists and is public", repo="me/public", private=True)
    logged_in.refuse_commits = True
    refused("me/drums: nothing was uploaded: the disk is full")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused("the hub does not know your token; log in again: hf auth login")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    refused("the hub cannot be reached")


def test_a_private_repository_is_private_and_needs_a_login(logged_in, ckpt, monkeypatch):
    PUSH(ckpt, private=True, n_sounds=0)
    assert logged_in.repositories["me/drums"].private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(MissingWeightsError, match=r"hf://me/drums: its specgan\.json .* private .*: hf auth login\)"):
        TrainedGenerator.load("hf://me/drums")


def test_what_cannot_be_fetched_is_said_with_how_else_to_get_it(logged_in):
    logged_in.repositories["me/other"] = Repository(private=False)
    for place, reason in [
        ("hf://me/nothing", "no such repository"),
        ("hf://me/other", "it has no such file"),
        ("hf://me/other@v7", "it has no such revision"),
    ]:
        with pytest.raises(MissingWeightsError) as caught:
            TrainedGenerator.load(place)
        first, how = str(caught.value).split("\n")
        assert place.partition("@")[0] in first and reason in first
        assert "generator.safetensors" in how and "hf download me/" in how and "ckpt_path=generator" in how


def test_a_place_that_is_no_repository_is_refused():
    for place in ("hf://me", "hf://", "hf://me/drums@", "hf://me/@x"):
        with pytest.raises(ValueError, match="hf://user/name"):
            TrainedGenerator.load(place)


def test_without_the_package_it_is_said_what_to_install(ckpt, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for work in (partial(PUSH, ckpt), partial(TrainedGenerator.load, "hf://me/drums")):
        with pytest.raises(ImportError, match=r"pip install 'specgan\[hub\]'"):
            work()


def test_no_training_goes_on_from_a_shared_generator(tmp_path, ckpt):
    TrainedGenerator.load(ckpt).save(tmp_path / "shared")
    with pytest.raises(ValueError, match="shared: a shared generator, without what a training goes on with"):
        level_range_of(tmp_path / "shared")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    TrainedGenerator.load(save_checkpoint(folder.parent / "x.ckpt")).save(folder)
    return folder


def changed(folder, **changes):
    path = folder / SETTINGS_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


STRANGE = {
    "no JSON": lambda folder: (folder / SETTINGS_NAME).write_text("x"),
    "deep": lambda folder: (folder / SETTINGS_NAME).write_text("[" * 100000),
    "a list": lambda folder: (folder / SETTINGS_NAME).write_text("[]"),
    "no UTF-8": lambda folder: (folder / SETTINGS_NAME).write_bytes(b'{"a": "\xff"}'),
    "large": lambda folder: (folder / SETTINGS_NAME).write_text(" " * (2**24 + 1)),
    "no class": lambda folder: changed(folder, class_names=[]),
    "other parameters": lambda folder: changed(folder, params={**asdict(PARAMS), "hop_length": 0}),
    "a program": lambda folder: changed(folder, generator={"_target_": "os.mkdir", "path": str(folder / "ran")}),
    "a larger network": lambda folder: changed(
        folder, generator={**json.loads((folder / SETTINGS_NAME).read_text())["generator"], "width": 2**20}
    ),
    "a vocoder that is none": lambda folder: changed(folder, vocoder=[1]),
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_a_strange_folder_is_refused_by_name_and_runs_nothing(strange, shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "folder")
    strange(folder)
    with pytest.raises(ValueError, match=r"folder.*specgan\.json") as caught:
        TrainedGenerator.load(folder)
    assert len(str(caught.value)) < 900
    assert not (folder / "ran").exists()


def test_weights_that_are_missing_or_damaged_are_named(shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "folder")
    content = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"generator\.safetensors: damaged"):
        TrainedGenerator.load(folder)
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(FileNotFoundError, match=r"generator\.safetensors: no such file"):
        TrainedGenerator.load(folder)
    (folder / WEIGHTS_NAME).write_bytes(content)
    changed(folder, vocoder={"params": {}, "settings": {}})
    with pytest.raises(FileNotFoundError, match=r"vocoder\.safetensors: no such file"):
        TrainedGenerator.load(folder)
