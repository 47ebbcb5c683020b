"""README, CONTRIBUTING and docs/: links have targets, commands compose, cheap ones run, examples work."""

import ast
import csv
import html
import importlib.util
import itertools
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from specgan.command_line.arguments import as_typed
from specgan.evaluation.glossary import METRICS
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise

ROOT = Path(__file__).parents[1]
CONF, DOCS = ROOT / "conf", ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SCRIPTS = {"train.py": "train", "generate.py": "generate", "preprocess.py": "preprocess", "specgan.server": "serve"}
EXTEND = DOCS / "how-to" / "extend.md"


@cache
def made_pages():
    return reference().pages()


@cache
def reference():
    """The hooks that write pages when the documentation is built."""
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "hooks" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(text) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block, also where a list indents it."""
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield found[2], found[3]


def prose(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


# --- links


def headings(text):
    """The anchors of a page, as mkdocs makes them."""
    for line in re.findall(r"^#+ +(.*)$", prose(text), re.MULTILINE):
        yield re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", line.strip().lower())).strip("-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page):
    made = {DOCS / path: text for path, text in made_pages().items()}
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        path, _, anchor = target.partition("#")
        if ":" in path:  # of another host, or mail
            continue
        place = (page.parent / path).resolve() if path else page
        if place in made:
            text = made[place]
        elif place.exists():
            text = place.read_text() if place.suffix == ".md" else ""
        else:
            broken.append(target)
            continue
        if anchor and anchor not in set(headings(text)):
            broken.append(target)
    assert not broken


# --- commands


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def commands() -> list[Command]:
    """Every command line of the pages, without comments and redirections; a placeholder such as <run> becomes x."""
    found = []
    for page in PAGES:
        for language, content in blocks(page.read_text()):
            if language not in ("", "bash"):
                continue
            for line in content.replace("\\\n", " ").splitlines():
                words = shlex.split(re.sub(r"<[^<>]*>", "x", line), comments=True)
                words = list(itertools.takewhile(lambda word: word != ">", words))
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # OMP_NUM_THREADS=1 python ...
                    words.pop(0)
                if words:
                    found.append(Command(name(page), tuple(words)))
    return found


def of_script(command) -> tuple[str, list[str]] | None:
    """The configuration that a command composes, and its arguments."""
    words = list(command.words)
    if words[0] == "specgan":
        return (words[1], words[2:]) if words[1:2] else None
    if words[0].rpartition("/")[2] not in ("python", "python3"):
        return None
    if words[1:2] == ["-m"]:
        words.pop(1)
    if words[1] == "specgan":  # python -m specgan export
        return words[2], words[3:]
    return (SCRIPTS[words[1]], words[2:]) if words[1] in SCRIPTS else None


COMPOSED = [command for command in commands() if of_script(command)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the files of my/ that docs/how-to/extend.md shows."""
    folder = tmp_path_factory.mktemp("own")
    for language, content in blocks(EXTEND.read_text()):
        first = re.match(r"# (my/\S+)\n", content)
        if first:
            assert Path(first[1]).suffix == {"python": ".py", "yaml": ".yaml"}[language]
            path = folder / first[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return folder


@pytest.fixture
def with_own(own, monkeypatch):
    monkeypatch.syspath_prepend(own)
    return own


def composed(root, overrides, tmp_path, own=None):
    search = [f"hydra.searchpath=[file://{own}/my/conf]"] if own else []
    overrides = [*overrides, *search, f"hydra.runtime.output_dir={tmp_path}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(root, overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, True)
    return cfg


SWEEP = ("-m", "--multirun")


def jobs(arguments) -> list[list[str]]:
    """The overrides of each job; a multirun has a job for each value of a choice."""
    typed = [word for word in as_typed(arguments) if word not in SWEEP]
    parsed = OverridesParser.create().parse_overrides(typed)
    values = []
    for override in parsed:
        if not override.is_sweep_override():
            values.append([override.input_line])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            values.append([])  # an interval, of a sweeper's own
    return [list(job) for job in itertools.product(*filter(None, values))]


@pytest.mark.parametrize("command", COMPOSED, ids=str)
def test_every_command_composes(command, own, tmp_path):
    root, arguments = of_script(command)
    if "--config-dir" in arguments:
        place = arguments.index("--config-dir")
        assert arguments[place + 1] == "my/conf"
        del arguments[place : place + 2]
    else:
        own = None
    arguments = [word for word in arguments if word != "--help"]
    wanted = re.search(r"hparams_search=optuna|hydra/launcher=(\w+)|hydra/sweeper=(\w+)", " ".join(arguments))
    if wanted and not any("optuna" in plugin.__module__ for plugin in Plugins.instance().discover()):
        pytest.skip("Hydra's plugins for sweeps are not installed: pip install -e '.[sweeps,slurm]'")
    for overrides in jobs(arguments):
        cfg = composed(root, overrides, tmp_path, own)
        if command.words[-1] == "--help" or (root == "preprocess" and "ask" in cfg.task and len(overrides) == 1):
            continue  # it asks the user for missing settings
        for key in cfg:
            if key != "hydra" and OmegaConf.is_config(cfg[key]):
                OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)
        if "spectrogram" in cfg:
            assert isinstance(instantiate(cfg.spectrogram, _convert_="all"), SpectrogramParams)


def test_there_are_commands_of_every_script():
    assert {of_script(command)[0] for command in COMPOSED} >= {"train", "generate", "preprocess"}
    assert len(COMPOSED) > 60


@pytest.mark.parametrize("command", [c for c in commands() if c.words[0] != "python"], ids=str)
def test_other_commands_are_known(command):
    """make targets and extras exist; anything else is one of a short list."""
    first, *rest = command.words
    if first == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif command.words[:3] == ("pip", "install", "-e"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", rest[-1])) <= set(extras)
    elif first == "pip":
        assert rest == ["install", "."]
    else:
        assert first in {
            "specgan",
            "hf",
            "python3",
            "mkdocs",
            "pre-commit",
            ".venv/bin/python",
            "tensorboard",
            "wandb",
            "curl",
            "docker",
        }


@pytest.mark.parametrize(
    "command", [c for c in commands() if c.words[0] == "python" and c.words[1].startswith("benchmarks/")], ids=str
)
def test_benchmarks_have_the_options_that_are_named(command):
    tree = ast.parse((ROOT / command.words[1]).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    options = {call.args[0].value for call in calls if getattr(call.func, "attr", "") == "add_argument" and call.args}
    assert {word for word in command.words[2:] if word.startswith("--")} <= options


# --- what runs


def tone(path, *, duration_s, sample_rate=8000):
    t = np.arange(round(duration_s * sample_rate)) / sample_rate
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * t).astype(np.float32), sample_rate)


def test_the_commands_of_preprocess_run_in_their_order(tiny_drums, tmp_path, monkeypatch, capfdbinary):
    """In this process, one file after another; those that need weights or another machine are left out."""
    monkeypatch.chdir(tmp_path)
    for folder in ("clips", "recordings"):
        shutil.copytree(tiny_drums, tmp_path / folder)
    tone(tmp_path / "song.mp3", duration_s=0.5, sample_rate=44100)
    tone(tmp_path / "songs" / "song.wav", duration_s=200)  # four slices of a picture
    pages = ["README.md", "docs/spectrograms.md", "docs/pictures.md", "docs/codec.md"]
    chosen = [(pages.index(c.page), *of_script(c)) for c in COMPOSED if c.page in pages]
    n_run, done = 0, []
    for _, root, arguments in sorted(chosen, key=lambda item: item[0]):
        is_cheap = root == "preprocess" and any(word.startswith("input=") for word in arguments)
        if not is_cheap or "captioner=" in " ".join(arguments) or arguments in done:
            continue
        if "input=original_images/" in arguments:  # what a reader would have
            shutil.copytree("images", "original_images")
            shutil.copytree("images", "decoded_images")
        if "task=slice" in arguments:  # the others have clips
            arguments = [*arguments, "output=cut"]
        cfg = composed("preprocess", [*arguments, "executor=serial"], tmp_path)
        with open_dict(cfg):
            cfg.task.pop("ask", None)
        with initialize_config_dir(str(CONF), version_base="1.3"):  # as while a script runs
            report = instantiate(cfg.task, _convert_="all")()
        assert report.n_done > 0, arguments
        assert report.failures == [], arguments
        assert cfg.output == "-" or Path(cfg.output).exists(), arguments
        done.append(arguments)
        n_run += 1
    assert n_run >= 12
    assert b"\x89PNG" in capfdbinary.readouterr().out  # of output=-
    assert len(list(Path("data/pictures").rglob("*.png"))) == 18
    assert soundfile.info("audio/song.wav").frames == 200 * 8000
    assert {path.name for path in Path("data/specs_v1").iterdir()} >= {"train", "val", "test", "manifest.csv"}


def test_the_preset_table_says_what_the_presets_are(tmp_path):
    rows = re.findall(r"^\| `(\w+)`[^|]*\|( \d+ Hz .*)\|$", (DOCS / "how-to" / "presets.md").read_text(), re.MULTILINE)
    assert {row[0] for row in rows} == {path.stem for path in (CONF / "spectrogram").glob("*.yaml")} - {"mel_80"}
    for preset, cells in rows:
        p = instantiate(composed("train", [f"spectrogram={preset}"], tmp_path).spectrogram, _convert_="all")
        assert [cell.strip() for cell in cells.split("|")[:5]] == [
            f"{p.sample_rate} Hz",
            f"{p.upper_hz:.0f} Hz",
            f"{p.n_samples / p.sample_rate:.2f} s",
            f"{p.n_mels} x {p.n_frames}",
            f"{1000 * p.hop_length / p.sample_rate:.1f} ms",
        ]


def test_every_figure_of_the_report_is_explained():
    explained = set(re.findall(r"\(`(\w+)`\) \|", (DOCS / "evaluation.md").read_text()))
    assert explained == set(METRICS)


# --- pages written by the hooks


def test_the_list_of_settings_has_every_file_and_setting():
    page = made_pages()["reference/configuration.md"]
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    files = {path: f"{path.parent.relative_to(CONF)}={path.stem}" for path in CONF.rglob("*/*.yaml")}
    files |= {path: path.name for path in CONF.glob("*.yaml")}
    assert set(sections) == set(files.values())

    for path, section in files.items():
        listed = re.findall(r"^\| `([^`]+)`", sections[section], re.MULTILINE)
        shown = html.unescape(sections[section]).replace("\\", "")  # which escape Markdown's own characters
        for line in path.read_text().splitlines():
            key = re.match(r"^\s*(\w+):", line)
            if key and key[1] not in ("defaults", "_target_", "_partial_"):
                # a section without a comment is listed by its settings
                assert any(key[1] in row.split(".") for row in listed), (path, line)
            comment = re.search(r"(?:^| )# (?!@package)(.*)$", line)
            assert not comment or line.lstrip().startswith("- ") or comment[1].replace("\\", "") in shown, (path, line)


def test_a_setting_is_listed_with_its_name_default_and_comment():
    text = (
        "# @package _global_\n# Of the whole file\n_target_: specgan.models.losses.BCELoss\n"
        "gamma: 0.5 # strength | of it; 0: none\nbetas: [0.0, 0.99]\n# stands above\npattern: null # null: any\n"
        "group: # of several\n  inner: >- # in two lines\n    one\n    two\n"
    )
    rows = [(row.name, row.default, row.comment) for row in reference().settings(text)]
    assert rows == [
        ("gamma", "0.5", "strength | of it; 0: none"),
        ("betas", "[0.0, 0.99]", ""),
        ("pattern", "null", "stands above; null: any"),
        ("group", "", "of several"),
        ("group.inner", "one two", "in two lines"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "| `loss.gamma` | `0.2` | strength of the gradient penalties; 0: none, which does not converge with this loss |",  # noqa: E501
        "| `evaluation.judge.width` | `16` | channels of the first layer |",
        "| `trainer.max_epochs` | `300` | stop after this number, of 16 to 32 batches each (data.epoch_size); -1: no limit |",  # noqa: E501
        "| `task.cmap` | `gray_r` |  |",
        "- `relativistic` with `model=cgan`",
        "- `drums` unless you choose another, in `train.yaml`",
    ],
)
def test_settings_have_the_names_that_a_command_takes(line):
    assert line in made_pages()["reference/configuration.md"].splitlines()


def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="mkdocs is not installed: pip install -e '.[docs]'")
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
    import subprocess

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    site = tmp_path / "site"
    assert "strength of the gradient penalties" in (site / "reference" / "configuration.html").read_text()
    code = (site / "reference" / "code" / "vocoders.html").read_text()
    assert "n_inversion_iter" in code
    assert "A fast Griffin-Lim algorithm" in code
    assert not list(site.rglob("*.py"))


# --- the examples of docs/how-to/extend.md


def test_own_loss(with_own, tmp_path):
    loss = instantiate(composed("train", ["loss=least_squares"], tmp_path, with_own).loss)
    logits = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert float(loss.discriminator_loss(*logits)) == (0 + 4) / 2 + (0 + 4) / 2
    assert float(loss.generator_loss(*logits)) == (1 + 1) / 2
    assert (loss.gamma, loss.penalty_every) == (0.2, 8)


def test_own_network_trains_a_step_and_comes_back_from_its_checkpoint(with_own, tmp_path):
    tiny = ["generator=plain", "generator.width=8", "discriminator.width=16", "model.latent_dim=4"]
    cfg = composed("train", tiny, tmp_path, with_own)
    model = instantiate(cfg.model, _convert_="all")
    params = SpectrogramParams(n_mels=16, n_frames=16)
    model.build(params=params, level_range=LevelRange(-80.0, 0.0), class_names=["a", "b"])
    logits = model.discriminator(model.generator(torch.randn(2, 4), torch.tensor([0, 1])), torch.tensor([0, 1]))
    logits.sum().backward()
    assert all(weight.grad is not None for weight in model.generator.parameters())

    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"my\.networks\.PlainGenerator"):
        TrainedGenerator.load(tmp_path / "x.ckpt")
    command = next(c for c in COMPOSED if c.page.endswith("extend.md") and "generate.py" in c.words)
    named = next(word for word in command.words if "network=" in word).partition("=")[2]
    trained = TrainedGenerator.load(tmp_path / "x.ckpt", network=named)
    assert trained.sample_indices([1, 0], [3, 4]).equal(model.sample([1, 0], [3, 4]))


def test_own_vocoder_gives_a_tone_the_pitch_it_had(with_own, tmp_path):
    cfg = composed("generate", ["vocoder=sines", "ckpt_path=x"], tmp_path, with_own)
    params, level_range = SpectrogramParams(), LevelRange(-80.0, 0.0)
    sines = instantiate(cfg.vocoder, _convert_="all")(params, level_range)
    band, time_s = 30, torch.arange(params.n_samples) / params.sample_rate
    waveform = 0.5 * torch.sin(2 * torch.pi * sines.middle_hz[band] * time_s).unsqueeze(0)
    transform = Spectrogram(params)
    level = transform(waveform)
    heard = transform(sines(normalise(level, params, level_range).unsqueeze(1), seeds=[0]))
    assert heard.shape == level.shape
    middle = slice(8, -8)
    assert heard[0, :, middle].mean(dim=-1).argmax() == level[0, :, middle].mean(dim=-1).argmax()


def test_own_captioner(with_own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, gain in (("loud", 0.5), ("quiet", 0.005), ("silent", 0.0)):
        (tmp_path / "songs").mkdir(exist_ok=True)
        t = np.arange(16000) / 16000
        soundfile.write(f"songs/{file}.wav", gain * np.sin(2 * np.pi * 440 * t), 16000, subtype="FLOAT")
    arguments = ["task=caption", "captioner=level", "input=songs", "output=captions", "executor=serial"]
    cfg = composed("preprocess", [*arguments, "task.tempo=false", "task.size=64"], tmp_path, with_own)
    report = instantiate(cfg.task, _convert_="all")()
    assert report.failures == []
    texts = {file: Path(f"captions/{file}_0000.txt").read_text().strip() for file in ("loud", "quiet", "silent")}
    assert texts == {"loud": "A loud sound.", "quiet": "A quiet sound.", "silent": "Silence."}


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_own_task(with_own, tmp_path, monkeypatch, executor):
    monkeypatch.chdir(tmp_path)
    tone(tmp_path / "clips" / "short.wav", duration_s=0.5)
    tone(tmp_path / "clips" / "long.flac", duration_s=2)
    (tmp_path / "clips" / "bad.wav").write_bytes(b"no sound in here")
    arguments = ["task=durations", "input=clips", "output=lengths", f"executor={executor}"]
    cfg = composed("preprocess", arguments, tmp_path, with_own)
    report = instantiate(cfg.task, _convert_="all")()
    assert (report.n_done, [Path(failure.path).name for failure in report.failures]) == (2, ["bad.wav"])
    with open("lengths/durations.csv", newline="") as file:
        rows = {Path(row["path"]).name: float(row["duration_s"]) for row in csv.DictReader(file)}
    assert rows == {"short.wav": 0.5, "long.flac": 2.0}
    assert "bad.wav" in Path("lengths/failures.csv").read_text()
