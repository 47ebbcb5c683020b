"""Words and paths arrive as they were typed, however they look."""

import os
import shlex

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from names import ODD_NAMES
from omegaconf import OmegaConf
from runs import ROOT, run

from specgan.audio import save_wav
from specgan.command_line.arguments import as_typed, typed
from specgan.command_line.suggestions import suggestion

ODD_WORDS = [
    "2024", "1", "1.5", "1_1", "1_000", "1e3", "007", "0x10", "null", "NULL", "true", "yes", "off", "nan", "a b",
    "Übung/k.wav", "a=b/k.wav", "=", "Take (2)/k.wav", "日本", "a, b", "x,", "{a: b}", "a#b", "C:\\clips\\", "it's",
    "say \"hi\"", "$HOME", " a ", "a\nb", "- x", "[x].wav", "str(1)", "choice(a,b)", "a:b", "\\", "\\'", "!", "",
]  # fmt: skip


def arrives(argument: str) -> object:
    """What a function that `conf/` names is called with, for `name=value` as the shell hands it over."""
    (override,) = OverridesParser.create().parse_overrides(as_typed([argument]))
    cfg = OmegaConf.create({"value": override.value(), "call": {"_target_": "builtins.dict", "value": "${value}"}})
    return instantiate(cfg.call, _convert_="all")["value"]


@pytest.mark.parametrize("word", [*ODD_WORDS, *ODD_NAMES])
@pytest.mark.parametrize("name", ["input", "label", "+task.separator"])
def test_a_word_arrives_as_it_was_typed(name, word):
    expected = {("input", "~"): os.path.expanduser("~"), ("label", "[a]"): ["a"]}.get((name, word), word)
    assert arrives(f"{name}={word}") == expected


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters="\0")) | st.text("ab'\"\\${}[](),=: ~\n1_.é", max_size=12)


@pytest.mark.parametrize("name", ["label", "input", "classes"])
@settings(max_examples=50, deadline=None)
@given(texts())
def test_any_word_arrives_by_the_command_that_is_printed_for_it(name, word):
    (argument,) = shlex.split(shlex.quote(typed(name, word)))
    assert arrives(argument) == word
    assert as_typed(as_typed([argument])) == as_typed([argument])  # Lightning starts its other processes by argv


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("label=[kick, 1_1,true,null,'a, b',Übung,a.b c]", ["kick", "1_1", "true", "null", "a, b", "Übung", "a.b c"]),
        ("data.classes=[true,1_1]", ["true", "1_1"]),
        ("data.classes=[it's,that's]", ["it's", "that's"]),
        ("data.classes=[]", []),
        ("data.classes=null", None),
        ("data.merge=null", None),
        ("data.merge={bd: kick, 1_1:true, Übung:null}", [["bd", "kick"], ["1_1", "true"], ["Übung", "null"]]),
        ("label={kick: 0.7,1_1:3, a: b:.5, Übung: 1e-1}", [["kick", 0.7], ["1_1", 3], ["a: b", 0.5], ["Übung", 0.1]]),
        ("label={kick: lots, tom: 1}", "{kick: lots, tom: 1}"),
        ("ckpt_path=null", None),
        ("label='null'", "null"),
        ('label="a\'b"', "a'b"),
        ("input='~/x'", "~/x"),
        ("input=~user/x", "~user/x"),
        ("seed=7", 7),  # a number, not a word
    ],
)
def test_lists_nothing_and_quotes(argument, expected):
    assert arrives(argument) == expected


def test_the_home_folder_is_found_where_the_shell_leaves_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/Zoë B (1)")
    assert arrives("input=~/a=b.wav") == "/home/Zoë B (1)/a=b.wav"
    assert arrives("label=~/x") == "~/x"


def test_in_a_sweep_a_comma_separates_words():
    def values(argument):
        *_, override = OverridesParser.create().parse_overrides(as_typed(["-m", argument])[1:])
        return [yaml.safe_load(text.replace("\\", "\\\\")) for text in override.sweep_string_iterator()]

    assert values("label=1_1,Übung,a=b,x") == ["1_1", "Übung", "a=b", "x"]
    assert values("label=[kick,1],[2]") == [["kick", "1"], ["2"]]
    assert values("data.audio_dir='a,b',c") == ["a,b", "c"]
    assert values("label=choice(a,b)") == ["a", "b"]
    assert values("model.latent_dim=1,2") == [1, 2]


def test_other_settings_and_options_are_left_alone():
    arguments = ["-m", "--config-dir", "my/conf", "seed=1,2", "~callbacks.preview", "+trainer.x=[1,2]", "model=cgan"]
    arguments += ["hydra.run.dir=runs/${seed}", "hydra.sweeper.storage=sqlite:///${paths.runs_dir}/a.db"]
    assert as_typed(arguments) == arguments


def test_every_path_of_the_configuration_is_text():
    keys = set()
    for file in (ROOT / "conf").rglob("*.yaml"):
        keys |= {key for key, value in flat(yaml.safe_load(file.read_text(encoding="utf-8"))) if is_path(key, value)}
    assert {"audio_dir", "hydra.run.dir", "ckpt_path", "input", "reconstructed", "model"} <= keys
    for key in keys:
        assert as_typed([f"{key}=2024"]) == [f"{key}='2024'"], "new: name it in command_line.py"


def flat(content, above=""):
    for key, value in (content or {}).items():
        yield from flat(value, f"{above}{key}.") if isinstance(value, dict) else [(f"{above}{key}", value)]


def is_path(key, value):
    name = key.rpartition(".")[2]
    is_text = value is None or (isinstance(value, str) and "${generator" not in value)
    return value == "???" or (is_text and name.endswith(("dir", "path", "folder", "file", "model")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=my", "clips/kick.wav"], "'clips/kick.wav' is not of the form name=value"),
        (["task.width_px=(1"], "'task.width_px=(1' has a value that Hydra cannot read"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_page_that_helps(arguments, message):
    with pytest.raises(SystemExit, match=r"docs/how-to/typing\.md") as raised:
        as_typed(arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert (ROOT / "docs" / "how-to" / "typing.md").is_file()


def test_a_script_reads_a_path_as_it_was_typed(tmp_path):
    source = tmp_path / "Übung (2)" / "a=b, ${x}.wav"
    save_wav(source, torch.rand(4000) - 0.5, 8000)
    arguments = ["task=render", f"input={source.relative_to(tmp_path)}", "output=1_1.png"]
    assert "1 made" in run("preprocess.py", *arguments, cwd=tmp_path, LC_ALL="C", PYTHONUTF8="0")
    assert (tmp_path / "1_1.png").is_file()


@pytest.mark.parametrize(
    ("root", "arguments", "meant"),
    [
        ("train", ["trainer.max_epoch=3"], "trainer.max_epochs?"),
        ("train", ["optimizer_g.lr=1"], "model.optimizer_g?"),
        ("train", ["data=folder", "data.audiodir=clips"], "data.audio_dir?"),
        ("preprocess", ["task=survey", "label_from=prefix"], "task.label_from?"),
        ("train", ["quux=1"], None),
    ],
)
def test_a_misspelt_setting_is_answered_with_the_one_that_was_meant(root, arguments, meant):
    with (
        initialize_config_dir(str(ROOT / "conf"), version_base="1.3"),
        pytest.raises(ConfigCompositionException) as raised,
    ):
        compose(root, arguments)
    sentence = suggestion(raised.value)
    assert sentence is None if meant is None else sentence.endswith(f"did you mean {meant}")


def test_other_errors_have_no_suggestion():
    assert suggestion(None) is None
    assert suggestion(ValueError("bad")) is None


def test_a_script_says_what_was_meant_and_fails(tmp_path):
    printed = run("generate.py", "n_sample=3", cwd=tmp_path, code=1)
    assert printed.splitlines()[-1] == "there is no setting n_sample; did you mean n_samples?"
