"""The rooms of the design: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FREE = {"specgan", "specgan.files"}  # whoever likes

ALLOWED = {
    "files": set(),
    "audio": set(),
    "spectrogram": set(),
    "manifest": set(),
    "gallery": set(),
    "metrics": set(),
    "models.sizes": set(),
    "models.generators": {"models.sizes"},
    "models.discriminators": {"models.sizes"},
    "models.losses": set(),
    "vocoder": {"spectrogram"},
    "vocos": {"spectrogram", "vocoder"},
    "picture": {"spectrogram"},
    "report": {"audio", "gallery", "picture"},
    "codec": set(),
    "codec_png": {"codec"},
    "data.dataset": {"audio", "spectrogram", "manifest", "shards"},
    "data.datamodule": {"audio", "spectrogram", "manifest", "data.dataset"},
    "data.drums": {"audio"},
    # generators: only `sample`; the networks themselves are injected
    "models.cgan": {"models.losses", "models.generators", "spectrogram"},
    "models.classifier": {"spectrogram"},
    "evaluation": {"audio", "spectrogram", "manifest", "metrics", "models.classifier", "report"},
    "stages": {"generation", "report"},
    "server": {"audio", "server_app", "server_jobs", "server_sounds"},
    "server_app": {"server_jobs", "server_limits", "server_schema", "server_sounds"},
    "server_jobs": {"audio", "tasks.render"},
    "server_limits": set(),
    "server_schema": set(),
    "server_sounds": {"audio", "generation", "models.generators", "picture"},
    "dashboards": {"picture"},
    "shards": set(),
    "survival": set(),
    "sweeps": set(),
    "pruning": {"sweeps"},
    "generation": {"audio", "spectrogram", "vocoder", "picture", "gallery", "models.generators"},
    "callbacks": {"audio", "spectrogram", "vocoder", "picture", "gallery", "metrics", "dashboards"},
    "tasks.executors": set(),
    "tasks.journal": {"tasks.runner"},
    "tasks.runner": set(),
    "tasks.clips": {"audio", "spectrogram", "picture", "shards", "tasks.journal", "tasks.runner"},
    "captions.caption": set(),
    "captions.tempo": set(),
    "captions.vocabulary": set(),
    "captions.muq": {"captions.caption", "captions.muq_model", "captions.vocabulary"},
    "captions.muq_model": {"captions.caption"},
    "captions.qwen2_audio": {"captions.caption"},
    "tasks.caption": {
        *("audio", "codec", "codec_png", "captions.caption", "captions.tempo"),
        *("tasks.executors", "tasks.journal", "tasks.runner", "tasks.slices"),
    },
    "tasks.pipeline": {"captions.caption", "tasks.caption", "tasks.encode", "tasks.executors", "tasks.runner"},
    "tasks.slices": {"audio", "codec", "codec_png"},
    "tasks.encode": {
        *("codec", "codec_png"),
        *("tasks.executors", "tasks.journal", "tasks.runner", "tasks.slices"),
    },
    "tasks.decode": {
        *("audio", "codec", "codec_png", "vocoder"),
        *("tasks.executors", "tasks.journal", "tasks.runner"),
    },
    "tasks.compare": {
        *("codec", "codec_png", "spectrogram", "gallery"),
        *("tasks.executors", "tasks.journal", "tasks.runner"),
    },
    "tasks.splits": {"manifest", "tasks.runner"},
    "tasks.drawing": {"audio", "spectrogram", "picture"},
    "tasks.render": {"picture", "tasks.drawing", "tasks.runner"},
    "tasks.frames": {"audio", "tasks.drawing", "tasks.runner"},
    "tasks.spectrograms": {
        *("audio", "spectrogram", "manifest", "shards"),
        *("tasks.clips", "tasks.executors", "tasks.journal", "tasks.runner"),
    },
}


def rooms():
    for path in sorted((ROOT / "specgan").rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT / "specgan").with_suffix("").parts), path


def imports_of_ours(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "specgan")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "specgan":
            assert node.level == 0
            # `from specgan.data import dataset` names a module too
            for alias in node.names:
                as_module = ROOT / f"{node.module}.{alias.name}".replace(".", "/")
                yield f"{node.module}.{alias.name}" if as_module.with_suffix(".py").exists() else node.module


@pytest.mark.parametrize(("room", "path"), list(rooms()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_room_imports_only_what_the_design_allows(room, path):
    assert room in ALLOWED, f"{room} is new: say in ALLOWED what it may import"
    allowed = FREE | {f"specgan.{name}" for name in ALLOWED[room]}
    assert set(imports_of_ours(path)) <= allowed


@pytest.mark.parametrize("script", ["train.py", "generate.py", "preprocess.py"])
def test_scripts_reach_the_package_through_the_configuration_only(script):
    assert set(imports_of_ours(ROOT / script)) <= {"specgan.manifest", "specgan.audio"}


@pytest.mark.parametrize("script", ["train.py", "generate.py", "preprocess.py"])
def test_help_loads_nothing_heavy(script):
    heavy = {"torch", "lightning", "wandb", "matplotlib", "librosa", "pandas", "torchaudio"}
    code = (
        "import sys, runpy\n"
        f"sys.argv = [{script!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({script!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('LOADED', sorted({heavy!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Override anything" in done.stdout
    assert "LOADED []" in done.stdout
