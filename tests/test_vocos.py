"""specgan.vocoders.vocos: a Vocos model gets the features it was trained on, and its sounds have our length.

With a tiny Vocos of random weights: what is tested is everything around the network.
"""

import builtins
import math

import onnxruntime
import pytest
import torch
import yaml

from specgan.export.graph import SoundGraph, to_onnx
from specgan.hub import MissingWeightsError
from specgan.models.generators import DCGANGenerator
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise, mel_filters, normalise
from specgan.vocoders.vocos import Vocos

PARAMS = SpectrogramParams(sample_rate=24000, n_mels=100, n_frames=16)
CONFIG = {
    "feature_extractor": {
        "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
        "init_args": {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100, "padding": "center"},
    },
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {"input_channels": 100, "dim": 16, "intermediate_dim": 32, "num_layers": 2},
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 16, "n_fft": 1024, "hop_length": 256, "padding": "center"},
    },
}
RANGE = LevelRange(-80.0, 0.0)


@pytest.fixture(scope="module")
def published():
    """A model as its authors make, save and run it."""
    pretrained = pytest.importorskip(
        "vocos.pretrained", reason='the package vocos is missing: pip install -e ".[vocos]"'
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            name: pretrained.instantiate_class((), section)
            for name, section in yaml.safe_load(yaml.dump(CONFIG)).items()
        }
        model = pretrained.Vocos(**parts).eval()
        for parameter in model.parameters():  # as made, it would hardly do anything
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocos")
    (folder / "config.yaml").write_text(yaml.dump(CONFIG))
    torch.save(published.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def vocos(folder):
    return Vocos(PARAMS, RANGE, model=str(folder))


def spectrograms(n=3, n_frames=16):
    return 2 * torch.rand(n, 1, 100, n_frames, generator=torch.Generator().manual_seed(0)) - 1


def features(vocos, spectrogram):
    """What the network gets for a spectrogram."""
    return vocos.features(vocos.transform.to_power(denormalise(spectrogram.squeeze(1), vocos.level_range)))


def sounds():
    """(2, 96 * 256): harmonic notes, and noise that fades."""
    t = torch.arange(96 * 256) / 24000
    note = sum(torch.sin(2 * math.pi * 220 * k * t + k) / k for k in range(1, 15))
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    return torch.stack([0.2 * note, 0.1 * noise * torch.exp(-3 * t)])


def encode(waveform):
    level = Spectrogram(PARAMS)(waveform)
    level_range = LevelRange(PARAMS.silence, level.max().item())
    return normalise(level, PARAMS, level_range)[:, None], level_range


@pytest.mark.parametrize("n_frames", [1, 2, 16, 33])
def test_n_frames_become_n_frames_times_hop_samples(vocos, n_frames):
    waveform = vocos(spectrograms(2, n_frames), seeds=[0, 1])
    assert waveform.shape == (2, n_frames * 256)
    assert waveform.isfinite().all()


def test_the_sound_is_what_the_published_code_makes_of_the_features(vocos, published):
    own = features(vocos, spectrograms())
    expected = published.decode(torch.cat([own, own[..., -1:]], dim=-1))
    waveform = vocos(spectrograms(), seeds=[0, 1, 2])
    assert expected.shape == waveform.shape and expected.abs().max() > 0.01
    inner = slice(12, -120)  # between the fades of 0.5 and 5 ms
    torch.testing.assert_close(waveform[:, inner], expected[:, inner])
    assert waveform[:, 0].abs().max() < 1e-6 and waveform[:, -1].abs().max() < 1e-6


def test_features_of_our_spectrograms_are_nearly_those_of_the_sound(folder, published):
    waveform = sounds()
    spectrogram, level_range = encode(waveform)
    own = features(Vocos(PARAMS, level_range, model=str(folder)), spectrogram)
    # The first and the last frames differ by more: Vocos mirrors a sound at its ends, ours is surrounded by silence.
    inner = slice(2, -2)
    expected = published.feature_extractor(waveform)[..., :-1]
    assert own.shape == expected.shape
    error_db = 20 / math.log(10) * (own - expected)[..., inner]
    heard = expected[..., inner] > expected.amax() - math.log(1000)  # 60 dB below the loudest
    assert error_db[heard].mean().abs() < 1
    assert error_db[heard].square().mean().sqrt() < 2.5


def test_a_louder_spectrogram_has_features_louder_by_as_much(vocos):
    quiet = torch.zeros(1, 1, 100, 16)
    difference = features(vocos, quiet + 0.25) - features(vocos, quiet)  # 10 dB of 80
    torch.testing.assert_close(difference, torch.full_like(difference, math.log(10) / 2), rtol=0, atol=1e-3)


def test_silence_is_the_lowest_feature(vocos):
    assert features(vocos, torch.full((1, 1, 100, 4), -1.0)).eq(torch.tensor(1e-7).log()).all()


def test_an_onnx_model_makes_the_same_sound(vocos):
    torch.manual_seed(0)
    network = DCGANGenerator(n_classes=2, n_mels=100, n_frames=16, latent_dim=4, width=16)
    trained = TrainedGenerator(network, PARAMS, RANGE, ["a", "b"], n_steps=0)
    session = onnxruntime.InferenceSession(to_onnx(SoundGraph(trained, vocos), {}, opset=18))
    z, label = torch.randn(3, 4), torch.tensor([0, 1, 1])
    _, waveform = session.run(None, {"z": z.numpy(), "label": label.numpy()})
    expected = vocos(network(z, label), seeds=[0, 1, 2])
    torch.testing.assert_close(
        torch.from_numpy(waveform[:, 0]), expected, rtol=0, atol=1e-4 * float(expected.abs().max())
    )


def test_our_filters_are_those_of_the_model(published):
    torch.testing.assert_close(mel_filters(PARAMS).T, published.feature_extractor.mel_spec.mel_scale.fb)


def test_a_batch_gives_each_spectrogram_the_sound_it_gets_alone_whatever_the_seed(vocos):
    batch = vocos(spectrograms(), seeds=[5, 6, 7])
    alone = torch.cat([vocos(item[None], seeds=[0]) for item in spectrograms()])
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-4 * batch.abs().max().item())


def test_making_one_leaves_the_global_generator_alone_and_nothing_to_train(folder):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    vocos = Vocos(PARAMS, RANGE, model=str(folder)).train()
    assert torch.rand(4).equal(expected)
    assert not vocos.backbone.training and not any(parameter.requires_grad for parameter in vocos.parameters())


# --- errors


@pytest.mark.parametrize("seeds", [[], [1, 2]])
def test_every_spectrogram_needs_its_seed(vocos, seeds):
    with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 3 spectrograms"):
        vocos(spectrograms(), seeds=seeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 16000, "n_mels": 64}, "sample_rate is 16000, not 24000; n_mels is 64, not 100; f_max is None"),
        ({"hop_length": 128}, "hop_length is 128, not 256"),
        ({"win_length": 512}, "win_length is 512, not 1024"),
        ({"f_max": 8000.0}, "f_max is 8000.0, not 12000 or null"),
        ({"norm": "slaney"}, "norm is slaney, not None"),
        ({"mel_scale": "slaney"}, "mel_scale is slaney, not htk"),
        ({"kind": "linear"}, "kind is linear, not mel"),
    ],
)
def test_spectrograms_of_other_settings_are_refused_with_both_values(folder, settings, message):
    params = SpectrogramParams(**{"sample_rate": 24000, "n_mels": 100, **settings})
    with pytest.raises(ValueError, match=f"{message}.*spectrogram=vocos_24k"):
        Vocos(params, RANGE, model=str(folder))


def test_the_same_upper_edge_by_another_name_fits(folder):
    params = SpectrogramParams(sample_rate=24000, n_mels=100, f_max=12000.0, level="log1p", floor_db=-100.0)
    assert Vocos(params, RANGE, model=str(folder)).params == params


def changed(folder, tmp_path, config=None, state=None):
    (tmp_path / "config.yaml").write_text(yaml.dump(config or CONFIG))
    weights = (folder / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(weights)
    if state is not None:
        torch.save(state, tmp_path / "pytorch_model.bin")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("section", "class_path"),
    [
        ("feature_extractor", "vocos.feature_extractors.EncodecFeatures"),
        ("backbone", "os.system"),
        ("head", "vocos.models.VocosBackbone"),
    ],
)
def test_a_config_names_no_class_but_those_that_are_known(folder, tmp_path, section, class_path):
    config = {**CONFIG, section: {**CONFIG[section], "class_path": class_path}}
    with pytest.raises(ValueError, match=f"config.yaml: {section} is {class_path}, not vocos"):
        Vocos(PARAMS, RANGE, model=changed(folder, tmp_path, config))


@pytest.mark.parametrize("config", [{}, ["x"], {"feature_extractor": 3}])
def test_a_config_of_something_else_is_named(folder, tmp_path, config):
    (tmp_path / "config.yaml").write_text(yaml.dump(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"config\.yaml: feature_extractor is None"):
        Vocos(PARAMS, RANGE, model=str(tmp_path))


@pytest.mark.parametrize("section", ["feature_extractor", "head"])
def test_frames_that_are_not_centred_are_refused(folder, tmp_path, section):
    part = CONFIG[section]
    config = {**CONFIG, section: {**part, "init_args": {**part["init_args"], "padding": "same"}}}
    with pytest.raises(ValueError, match="padding is not center"):
        Vocos(PARAMS, RANGE, model=changed(folder, tmp_path, config))


def test_weights_of_another_model_are_named(folder, tmp_path):
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state["head.out.weight"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"pytorch_model.bin does not hold the weights of the config.yaml"):
        Vocos(PARAMS, RANGE, model=changed(folder, tmp_path, state=state))


class Evil:
    def __reduce__(self):
        return print, ("code of the file runs",)


def test_weights_run_no_code(folder, tmp_path, capsys):
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        Vocos(PARAMS, RANGE, model=changed(folder, tmp_path, state={"backbone.x": Evil()}))
    assert "code of the file runs" not in capsys.readouterr().out


def test_a_folder_that_lacks_a_file_says_how_to_get_it(folder, tmp_path):
    changed(folder, tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(MissingWeightsError, match=r"no pytorch_model\.bin in this folder(?s:.)*hf download"):
        Vocos(PARAMS, RANGE, model=str(tmp_path))


def test_a_model_that_cannot_be_fetched_says_how_to_get_it(published, empty_hub):
    with pytest.raises(MissingWeightsError, match=r"no such folder(?s:.)*54 MB(?s:.)*MIT(?s:.)*hf download charactr/"):
        Vocos(PARAMS, RANGE)


def test_without_the_package_the_message_says_what_to_install(monkeypatch, tmp_path):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "vocos":
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[vocos\]"'):
        Vocos(PARAMS, RANGE, model=str(tmp_path))
