"""The commands that are printed for a user to copy run as they are, whatever is in the paths."""

import shlex
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from specgan.command_line.arguments import typed
from specgan.command_line.commands import command

TEXTS = [
    "runs/a",
    "2024",
    "1e5",
    "true",
    "null",
    "",
    "a b",
    " a ",
    "Take (2)/x",
    "Übung/日本",
    "a=b/c",
    "a,b",
    "[a]",
    "{a",
]
TEXTS += [
    'a"b',
    "a'b",
    "a\\b",
    'a\\"b',
    "a\\",
    'a\\\\"',
    "$HOME",
    "`ls`",
    "~/x",
    "a#b",
    "a:b",
    "!a;b",
]


@pytest.mark.parametrize("text", TEXTS)
def test_hydra_reads_back_what_was_set(text):
    (override,) = OverridesParser.create().parse_overrides([typed("ckpt_path", text)])
    assert OmegaConf.create({"x": 1, "ckpt_path": override.value()}).ckpt_path == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_shell_hands_over_what_was_set(text, tmp_path, monkeypatch):
    (tmp_path / "a (b)").mkdir()
    (tmp_path / "a (b)" / "generate.py").write_text("import sys\nprint(sys.argv[1:])")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "a (b)" / "train.py")])
    line = command("generate.py", ckpt_path=text, label="all")
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([typed("ckpt_path", text), "label=all"])


def test_a_plain_path_stays_plain(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    line = command("generate.py", ckpt_path="/home/me/runs/a/checkpoints/best.ckpt", label="all")
    assert shlex.split(line)[1:] == ["generate.py", "ckpt_path=/home/me/runs/a/checkpoints/best.ckpt", "label=all"]
    assert line.endswith("generate.py ckpt_path=/home/me/runs/a/checkpoints/best.ckpt label=all")
