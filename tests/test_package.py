"""The package as pip installs it, without the clone: the command `specgan`, its configuration, and Python."""

import os
import re
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from checkpoints import save_checkpoint
from runs import ROOT

import specgan
from specgan.__main__ import COMMANDS
from specgan.command_line.commands import command


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the sdist, and of the wheel that was built from it."""
    pytest.importorskip("build", reason="not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("built")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def home(built, tmp_path_factory):
    """A new environment with the wheel; its libraries are those of this environment, the clone is not on its path."""
    home = tmp_path_factory.mktemp("home")
    venv.create(home / "env", symlinks=True)
    (libraries,) = (home / "env").glob("lib/*/site-packages")
    (libraries / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", home / "env", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*install, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    save_checkpoint(home / "best.ckpt")
    return home


def run(home, *words, code=0, **variables):
    path = f"{home / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    done = subprocess.run(words, cwd=home, env=environment | variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_package_is_not_that_of_the_clone(home):
    where = run(home, "python", "-c", "import specgan; print(specgan.__file__)")
    assert Path(where.strip()).is_relative_to(home)
    assert run(home, "specgan", "--version").strip() == specgan.__version__
    shown = run(home, "specgan")
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_an_unknown_command_is_refused(home):
    assert "'trian' is none of its commands" in run(home, "specgan", "trian", "model=cgan", code=2)


def test_it_has_all_of_conf(home):
    (scripts,) = home.glob("env/lib/*/site-packages/specgan/scripts")
    packaged = {path.relative_to(scripts / "conf") for path in scripts.rglob("*.yaml")}
    assert packaged == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}


def test_generate_from_any_folder_and_the_same_samples_in_python(home):
    run(home, "specgan", "generate", "ckpt_path=best.ckpt", "label=kick", "n_samples=1", "seed=7", "output=sounds")
    written, sample_rate = soundfile.read(home / "sounds" / "kick" / "kick_7.wav", dtype="int16")
    shown = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "install.md").read_text(), re.DOTALL)[1]
    run(home, "python", "-c", shown.replace("sounds.class_names[0]", "'kick'"))
    drawn, rate = soundfile.read(home / "drawn.wav", dtype="int16")
    assert rate == sample_rate
    np.testing.assert_allclose(drawn, written, rtol=0, atol=1)  # rounded to 16 bits in two ways


def test_train_composes_with_settings_of_ones_own(home):
    (home / "mine" / "spectrogram").mkdir(parents=True)
    (home / "mine" / "spectrogram" / "small.yaml").write_text("defaults: [mel_64x64]\nn_mels: 32\n")
    shown = run(home, "specgan", "train", "--config-dir", "mine", "spectrogram=small", "--cfg", "job")
    assert "n_mels: 32" in shown


def test_the_service_finds_its_configuration(home):
    assert "max_upload_mb: 15" in run(home, "specgan", "serve", "--cfg", "job")


def test_an_export_finds_its_configuration_and_the_parts_of_its_page(home):
    assert "opset: 18" in run(home, "specgan", "export", "--cfg", "job")
    own = {path.name for path in (ROOT / "specgan" / "export" / "web").iterdir()}
    assert own == {path.name for path in home.glob("env/lib/*/site-packages/specgan/export/web/*")}


def test_tab_completes_commands_and_their_settings(home):
    def completed(line):
        words = line.split(" ")
        ask = (
            f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{line}"; _specgan; echo "${{COMPREPLY[@]}}"'
        )
        return run(home, "bash", "-c", f'eval "$(specgan completion)"; {ask}').split()

    assert completed("specgan ge") == ["generate"]
    assert completed("specgan train loss=h") == ["loss=hinge"]


def test_the_image_is_made_from_all_that_the_package_is_and_the_citation_is_of_this_version():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = {word for line in lines if line[:1] == ["COPY"] for word in line[1:-1]}
    built = {"pyproject.toml", "setup.py", "MANIFEST.in", "specgan", "conf", "train.py", "generate.py", "preprocess.py"}
    assert built <= copied
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied <= {line.removeprefix("!") for line in ignored}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = [line[1].split('"')[1].split(",") for line in lines if line[:1] == ["ARG"] and "EXTRAS=" in line[1]]
    assert set(extras) <= set(project["optional-dependencies"])
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] == specgan.__version__


def test_printed_commands_are_those_of_the_package(home):
    program = (
        "import sys; from specgan.command_line.commands import command, scripts_folder\n"
        "sys.argv[0] = str(scripts_folder() / 'train.py')\n"
        "print(command('generate.py', label='all'))"
    )
    assert run(home, "python", "-c", program).strip() == "specgan generate label=all"


def test_a_clone_keeps_its_scripts(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert command("generate.py", label="all").endswith(" generate.py label=all")


def test_load_names_an_unknown_class(tmp_path):
    with pytest.raises(ValueError, match="label is 'snare': not a class of this checkpoint; one of 7, kick"):
        specgan.load(save_checkpoint(tmp_path / "best.ckpt")).draw("snare")
