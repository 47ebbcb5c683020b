import socket

import pytest
import torch

from specgan.audio import save_wav
from specgan.data.drums import drum

# With minutes of work: they start first, so that no worker is left alone with one of them at the end.
LONG = ("survival", "sweeps", "scripts", "notebooks", "dashboards", "task_spectrograms", "server", "processes")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


@pytest.fixture(scope="session")
def tiny_drums(tmp_path_factory):
    """Six drums of each of three classes, in class subfolders."""
    root = tmp_path_factory.mktemp("tiny_drums")
    for name in ("clap", "kick", "open_hat"):
        for seed in range(6):
            save_wav(root / name / f"{name}_{seed}.wav", drum(name, seed=seed, sample_rate=16000), 16000)
    return root


@pytest.fixture
def empty_hub(monkeypatch, tmp_path):
    """No network, and an empty cache of the Hugging Face hub, which is returned."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def one_seed_for_every_test():
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Replaces characters that are not UTF-8 in captured output: pytest-xdist sends it as UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
