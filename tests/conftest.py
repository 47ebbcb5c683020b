import shutil
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


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; each module has its own, because its event loop would be in the way of others."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser's remote control: playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a browser: chromium")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    # Without a screen; and without a sandbox, which root does not get.
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=chromium, args=switches)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def one_seed_for_every_test():
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Replaces characters that are not UTF-8 in captured output: pytest-xdist sends it as UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
