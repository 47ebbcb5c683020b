"""The packages of the design: which may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FREE = {"", "files"}  # for everyone

# A package by the packages that it may import; nobody imports upwards.
ALLOWED = {
    "files": "",
    "hub": "",
    "command_line": "",
    "__main__": "command_line",
    "audio": "",
    "spectrogram": "",
    "sets": "hub",
    "cutting": "audio",
    "vocoders": "hub spectrogram",
    "models": "hub spectrogram",
    "latent": "audio spectrogram models",
    "batch": "",
    "captions": "hub",
    "pictures": "audio spectrogram",
    "codec": "audio spectrogram",
    "data": "audio spectrogram sets",
    "clips": "audio spectrogram batch sets data pictures",
    "evaluation": "audio spectrogram models data pictures",
    "survey": "command_line audio spectrogram data pictures",
    "generation": "audio spectrogram vocoders models latent batch pictures",
    "sharing": "command_line hub audio spectrogram models generation evaluation survey",
    "export": "command_line spectrogram vocoders models generation pictures",
    "server": "command_line audio generation latent models pictures",
    "training": "command_line audio spectrogram vocoders models latent data pictures evaluation survey generation",
    "tasks": "command_line audio spectrogram vocoders batch captions codec sets cutting data clips "
    "pictures evaluation survey",
}


def modules():
    return sorted(path for path in (ROOT / "specgan").rglob("*.py"))


def package_of(module):
    """specgan.data.shards -> data; specgan.audio -> audio."""
    return module.split(".")[1] if "." in module else ""


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


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "specgan")))
def test_a_module_imports_only_what_its_package_may(path):
    package = path.relative_to(ROOT / "specgan").with_suffix("").parts[0]
    imported = {package_of(name) for name in imports_of_ours(path)} - FREE
    if package == "__init__":
        assert not imported, "importing specgan alone loads nothing"
    else:
        assert package in ALLOWED, f"{package} is new: say in ALLOWED what it may import"
        assert imported <= {package, *ALLOWED[package].split()}


def test_few_modules_lie_outside_packages():
    assert len(list((ROOT / "specgan").glob("*.py"))) <= 6  # __init__ and five more


def test_each_package_says_what_it_may_import():
    for package, allowed in ALLOWED.items():
        folder = ROOT / "specgan" / package
        if folder.is_dir():
            about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            assert about.splitlines()[-1] == f"May import: {', '.join(allowed.split()) or 'nothing of ours but files'}."


@pytest.mark.parametrize("script", ["train.py", "generate.py", "preprocess.py"])
def test_scripts_reach_the_package_through_the_configuration_only(script):
    allowed = {"specgan.command_line.arguments", "specgan.command_line.workers"}  # what comes before it
    assert set(imports_of_ours(ROOT / script)) <= allowed


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
