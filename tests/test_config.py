"""Every YAML composes and instantiates."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from specgan.models.cgan import CGAN
from specgan.spectrogram import LevelRange, SpectrogramParams

CONF = Path(__file__).parents[1] / "conf"
# What a file needs from the command line, and what makes it instantiable without its surroundings.
NEEDED = {
    "data/folder": ["data.audio_dir=clips"],
    "data/batches": ["+data.audio_dir=clips"],
    "data/dataset": ["data.dataset_dir=specs"],
    "preprocess": ["input=clips", "output=specs"],
    "generate": ["ckpt_path=last.ckpt"],
    "task/compare": ["task.reconstructed=decoded"],
}
ROOT_OF_GROUP = {
    "executor": "preprocess",
    "captioner": "preprocess",
    "task": "preprocess",
    "task/look": "preprocess",
    "hydra/job_logging": "preprocess",
}
TRAINED = sorted(path.stem for path in (CONF / "spectrogram").glob("*.yaml") if path.stem != "mel_80")  # whole files


def group_files():
    return sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.rglob("*/*.yaml"))


def composed(root, overrides, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            root, overrides=[*overrides, "hydra.runtime.output_dir=" + str(tmp_path)], return_hydra_config=True
        )
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, True)
    return cfg


def resolve(cfg):
    """Follows every interpolation; hydra's own settings have gaps until a job runs."""
    for key in cfg:
        if key != "hydra" and OmegaConf.is_config(cfg[key]):
            OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("name", group_files())
def test_every_group_file_composes_and_instantiates(name, tmp_path):
    group, _, choice = name.rpartition("/")
    root = ROOT_OF_GROUP.get(group, "train")
    overrides = [f"{group}={choice}", *(["task=render"] if group == "task/look" else [])]
    cfg = composed(
        root, [*overrides, *NEEDED.get(name, []), *(NEEDED["preprocess"] if root == "preprocess" else [])], tmp_path
    )
    if group == "callbacks":
        assert all(instantiate(callback, _convert_="all") for callback in cfg.callbacks.values())
    elif group == "logger" and not cfg.logger:
        assert instantiate(cfg.trainer, _convert_="all").loggers == []
    elif group == "task/look":
        instantiate(cfg.task, _convert_="all")
    elif group not in ("paths", "experiment", "hydra/job_logging"):
        instantiate(cfg[group], _convert_="all")
    resolve(cfg)


@pytest.mark.parametrize("root", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_root_resolves(root, tmp_path):
    cfg = composed(root, NEEDED.get(root, []), tmp_path)
    resolve(cfg)
    work, method = {
        "train": ("data", "train_dataloader"),
        "generate": ("generate", "__call__"),
        "preprocess": ("task", "__call__"),
    }[root]
    assert hasattr(instantiate(cfg[work], _convert_="all"), method)


@pytest.mark.parametrize("model", ["cgan", "cgan_classic"])
@pytest.mark.parametrize("preset", TRAINED)
def test_every_model_builds_at_every_spectrogram_preset(model, preset, tmp_path):
    small = ["generator.width=16", "discriminator.width=16"]
    cfg = composed("train", [f"model={model}", f"spectrogram={preset}", *small], tmp_path)
    module = instantiate(cfg.model, _convert_="all")
    params = instantiate(cfg.spectrogram)
    assert isinstance(module, CGAN)
    assert isinstance(params, SpectrogramParams)
    module.build(params=params, level_range=LevelRange(-80, 0), class_names=["a", "b"])
    assert module.sample([1, 0], [3, 4]).shape == (2, 1, params.n_mels, params.n_frames)


def test_presets_have_the_lengths_their_comments_promise(tmp_path):
    lengths = {}
    for preset in ("mel_64x64", "mel_8k_64x64", "mel_128x128", "mel_128x512"):
        params = instantiate(composed("train", [f"spectrogram={preset}"], tmp_path).spectrogram)
        lengths[preset] = round(params.n_samples / params.sample_rate, 2)
    assert lengths == {"mel_64x64": 1.02, "mel_8k_64x64": 1.02, "mel_128x128": 1.02, "mel_128x512": 5.94}


def test_classic_recipe_is_the_classic_recipe(tmp_path):
    cfg = composed("train", ["experiment=classic"], tmp_path)
    assert cfg.spectrogram.level == "log1p"
    assert cfg.loss._target_.endswith("BCELoss")
    assert cfg.generator.embedding_dim is None  # one-hot
    assert (cfg.generator.norm, cfg.discriminator.norm) == ("batch", "batch")
    assert cfg.discriminator._target_.endswith("ChannelDiscriminator")
    for optimizer in (cfg.model.optimizer_g, cfg.model.optimizer_d):
        assert (optimizer._target_, optimizer.lr, list(optimizer.betas)) == ("torch.optim.Adam", 2e-4, [0.5, 0.999])


def test_a_misspelt_key_is_refused(tmp_path):
    with pytest.raises(ConfigCompositionException, match="latent_dims"):
        composed("train", ["model.latent_dims=64"], tmp_path)


def test_networks_are_chosen_without_naming_a_package(tmp_path):
    cfg = composed("train", ["model=cgan", "loss=hinge", "generator=dcgan_classic", "generator.width=32"], tmp_path)
    assert cfg.loss._target_.endswith("HingeLoss")
    assert (cfg.generator.norm, cfg.generator.width) == ("batch", 32)


def test_group_files_are_short():
    long = {str(path): n for path in CONF.rglob("*/*.yaml") if (n := len(path.read_text().splitlines())) > 30}
    assert not long
