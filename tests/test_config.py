"""Every YAML composes and instantiates."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.plugins.launcher import Launcher
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from specgan.audio import WavSettings
from specgan.codec.coding import CodecParams
from specgan.codec.slices import Slicing
from specgan.models.cgan import CGAN
from specgan.models.classifier import Classifier
from specgan.pictures.settings import PictureSettings
from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.training import stages, testing

CONF = Path(__file__).parents[1] / "conf"
# What a file needs from the command line, and what makes it instantiable without its surroundings.
NEEDED = {
    "data/folder": ["data.audio_dir=clips"],
    "data/batches": ["+data.audio_dir=clips"],
    "data/recordings": ["data.audio_dir=clips"],
    "data/hf": ["data.name=user/set"],
    "data/dataset": ["data.dataset_dir=specs"],
    "preprocess": ["input=clips", "output=specs"],
    "generate": ["ckpt_path=last.ckpt"],
    "push": ["ckpt_path=last.ckpt", "repo=user/name"],
    "export": ["ckpt_path=last.ckpt", "output=sounds.onnx"],
    "stage/test": ["ckpt_path=last.ckpt"],
    "task/compare": ["task.reconstructed=decoded"],
}
ROOT_OF_GROUP = {
    "executor": "preprocess",
    "captioner": "preprocess",
    "task": "preprocess",
    "task/look": "preprocess",
    "hydra/job_logging": "preprocess",
}
PACKAGE = {"judge": "evaluation.judge"}  # where the files of a group stand, if not under its name
TRAINED = sorted(path.stem for path in (CONF / "spectrogram").glob("*.yaml") if path.stem != "mel_80")  # whole files

GENERATORS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in ("classifier", "vocoder"))


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
    place = PACKAGE.get(group, group)
    if group in ("hardware", "task/codec"):  # come with trainer=gpu, task=encode and others alone
        pytest.skip("composed with other files")
    overrides = [
        f"{group}={choice}" if place == group else f"{group}@{place}={choice}",
        *(["task=render"] if group == "task/look" else []),
    ]
    cfg = composed(
        root, [*overrides, *NEEDED.get(name, []), *(NEEDED["preprocess"] if root == "preprocess" else [])], tmp_path
    )
    if group == "callbacks":
        assert all(instantiate(callback, _convert_="all") for callback in cfg.callbacks.values())
    elif name in ("trainer/gpu", "trainer/ddp"):
        assert (cfg.model.compile, cfg.data.pin_memory, cfg.trainer.accelerator) == (True, True, "gpu")
        if not torch.cuda.is_available():
            with pytest.raises(InstantiationException, match="No supported gpu backend found"):
                instantiate(cfg.trainer, _convert_="all")
    elif group == "logger" and not cfg.logger:
        assert instantiate(cfg.trainer, _convert_="all").loggers == []
    elif group == "hydra/launcher":
        assert isinstance(instantiate(cfg.hydra.launcher), Launcher)
    elif group == "task/look":
        instantiate(cfg.task, _convert_="all")
    elif group not in ("paths", "experiment", "hparams_search", "hydra/job_logging"):
        instantiate(OmegaConf.select(cfg, place), _convert_="all")
    resolve(cfg)


@pytest.mark.parametrize("root", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_root_resolves(root, tmp_path):
    cfg = composed(root, NEEDED.get(root, []), tmp_path)
    resolve(cfg)
    work, method = {
        "train": ("data", "train_dataloader"),
        "generate": ("generate", "__call__"),
        "preprocess": ("task", "__call__"),
        "serve": ("serve", "__call__"),
        "push": ("push", "__call__"),
        "export": ("export", "__call__"),
    }[root]
    assert hasattr(instantiate(cfg[work], _convert_="all"), method)


@pytest.mark.parametrize("model", GENERATORS)
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


@pytest.mark.parametrize("preset", TRAINED)
def test_a_vocoder_builds_at_every_spectrogram_preset(preset, tmp_path):
    small = ["model.network.width=8", "model.network.n_blocks=1"]
    cfg = composed("train", ["model=vocoder", f"spectrogram={preset}", *small], tmp_path)
    module, params = instantiate(cfg.model, _convert_="all"), instantiate(cfg.spectrogram)
    module.build(params=params, level_range=LevelRange(-80, 0))
    assert module.sound(torch.zeros(1, 1, params.n_bins, 4), seeds=[0]).shape == (1, 4 * params.hop_length)


# Files whose values are also the defaults of what they name; recipes and presets differ from those on purpose.
WITH_DEFAULTS = ["spectrogram/mel_64x64"] + [
    name for name in group_files() if name.split("/")[0] in ("executor", "task", "vocoder") and name.count("/") == 1
]
WITH_DEFAULTS += ["captioner/muq", "captioner/qwen2_audio"]
# Classes whose fields a task takes as **settings. Pictures of task=frames are narrower than those of task=render.
FIELDS_OF = dict.fromkeys(("task/encode", "task/caption", "task/pipeline"), (CodecParams, Slicing))
FIELDS_OF["task/render"] = (PictureSettings,)


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_a_setting_has_one_default(name, tmp_path):
    """The same for those who call the code, and for those who run the script."""
    group, choice = name.split("/")
    root = ROOT_OF_GROUP.get(group, "train")
    needed = [*(NEEDED["preprocess"] if root == "preprocess" else []), *NEEDED.get(name, [])]
    cfg = composed(root, [f"{group}={choice}", *needed], tmp_path)[group]
    defaults = {}
    for target in (*FIELDS_OF.get(name, ()), get_object(cfg._target_)):
        for key, parameter in inspect.signature(target).parameters.items():
            if parameter.default is not parameter.empty and key in cfg and not OmegaConf.is_interpolation(cfg, key):
                defaults[key] = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    assert OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(defaults))) == defaults


def test_wavs_have_one_default_for_scripts_and_code(tmp_path):
    """The service writes the same bytes as generate.py, by the defaults of the class."""
    cfg = composed("generate", NEEDED["generate"], tmp_path)
    assert instantiate(cfg.generate.wav) == WavSettings()


def test_presets_have_the_lengths_their_comments_promise(tmp_path):
    for preset in TRAINED:
        params = instantiate(composed("train", [f"spectrogram={preset}"], tmp_path).spectrogram)
        first_line = (CONF / "spectrogram" / f"{preset}.yaml").read_text().splitlines()[0]
        assert first_line.startswith(
            f"# {params.n_samples / params.sample_rate:.2f} s at {params.sample_rate / 1000:g} kHz"
        )
        assert f"in {params.n_mels} x {params.n_frames} values" in first_line


def test_classic_recipe_is_the_classic_recipe(tmp_path):
    cfg = composed("train", ["experiment=classic"], tmp_path)
    assert cfg.spectrogram.level == "log1p"
    assert cfg.loss._target_.endswith("BCELoss")
    assert cfg.generator.embedding_dim is None  # one-hot
    assert (cfg.generator.norm, cfg.discriminator.norm) == ("batch", "batch")
    assert cfg.discriminator._target_.endswith("ChannelDiscriminator")
    for optimizer in (cfg.model.optimizer_g, cfg.model.optimizer_d):
        assert (optimizer._target_, optimizer.lr, list(optimizer.betas)) == ("torch.optim.Adam", 2e-4, [0.5, 0.999])


@pytest.mark.parametrize(
    ("overrides", "stage", "settings"),
    [
        ([], stages.fit, {}),
        (["stage=test", "ckpt_path=last.ckpt"], testing.test, {"generator": None}),
        (["model=classifier"], stages.fit_judge, {}),
        (["model=cgan_classic", "stage=fit"], stages.fit, {}),
    ],
)
def test_a_stage_is_a_function_of_the_whole_configuration(overrides, stage, settings, tmp_path):
    cfg = composed("train", overrides, tmp_path)
    work = instantiate(cfg.stage)
    assert (work.func, work.args, work.keywords) == (stage, (), settings)


def test_measuring_leaves_no_folder_of_its_own(tmp_path):
    """What a test writes goes into the run's folder: Hydra makes none, and no .hydra where the user stands."""
    cfg = composed("train", ["stage=test", "ckpt_path=last.ckpt"], tmp_path)
    assert (cfg.hydra.run.dir, cfg.hydra.output_subdir) == (".", None)
    assert list(cfg.hydra.job_logging.root.handlers) == ["console"]


def test_the_judge_of_evaluations_and_the_one_trained_by_itself_have_one_file_of_settings(tmp_path):
    """Else each would look for its judge under another name in the dataset folder."""
    made = []
    for overrides in ([], ["model=classifier"]):
        cfg = composed("train", overrides, tmp_path)
        settings = cfg.model if overrides else cfg.evaluation.judge
        made.append(instantiate(cfg.evaluation, judge=settings, _convert_="all"))
    first, second = (evaluation.recipe.classifier for evaluation in made)
    assert first.func is second.func is Classifier
    assert repr(first) == repr(second)
    judge = first(sample_rate=16000, n_samples=16384, class_names=["a", "b"])
    assert judge.judge(torch.zeros(2, 16384))[1].shape == (2, 2)
    # and a setting that is changed for one alone is seen
    cfg = composed("train", ["model=classifier", "model.width=8"], tmp_path)
    other = instantiate(cfg.evaluation, judge=cfg.model, _convert_="all").recipe.classifier
    assert other.keywords == {**first.keywords, "width": 8}


def test_every_judge_setting_is_in_its_file(tmp_path):
    """So that it can be found there, with what it means."""
    signature = inspect.signature(Classifier).parameters
    from_data = {"sample_rate", "n_samples", "class_names", "channels"}
    cfg = composed("train", [], tmp_path)
    assert {name for name in cfg.evaluation.judge if not name.startswith("_")} == set(signature) - from_data


def test_evaluation_measures_with_the_vocoder_of_the_run(tmp_path):
    cfg = composed("train", ["vocoder.n_iter=3"], tmp_path)
    measure = instantiate(cfg.callbacks.measure, _convert_="all")
    for evaluation in (instantiate(cfg.evaluation, _convert_="all"), measure.evaluation):
        assert evaluation.recipe.vocoder.keywords["n_iter"] == 3


def test_the_best_checkpoint_and_sweeps_go_by_what_is_measured(tmp_path):
    cfg = composed("train", [], tmp_path)
    assert cfg.optimized_metric == cfg.callbacks.best.monitor == "val/fad"
    best = instantiate(cfg.callbacks.best, _convert_="all")
    assert (best.mode, best.save_top_k, best.filename) == ("min", 1, "best")


def test_a_misspelt_key_is_refused(tmp_path):
    with pytest.raises(ConfigCompositionException, match="latent_dims"):
        composed("train", ["model.latent_dims=64"], tmp_path)


def test_networks_are_chosen_without_naming_a_package(tmp_path):
    cfg = composed("train", ["model=cgan", "loss=hinge", "generator=dcgan_classic", "generator.width=32"], tmp_path)
    assert cfg.loss._target_.endswith("HingeLoss")
    assert (cfg.generator.norm, cfg.generator.width) == ("batch", 32)


def test_group_files_are_short():
    long = {str(path): n for path in CONF.rglob("*/*.yaml") if (n := len(path.read_text().splitlines())) > 32}
    assert not long


@pytest.mark.parametrize(
    "precision", [16, "16", "32", 64, "bf16", "32-true", "bf16-mixed", "16-mixed", "64-true", None]
)
def test_precisions_that_train_are_accepted(precision):
    stages._require_precision(OmegaConf.create({"trainer": {"precision": precision}}))


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "transformer-engine", "mixed", 8])
def test_precisions_that_do_not_train_are_refused(precision):
    with pytest.raises(ValueError, match=f"trainer.precision is {precision}; the models train in 32-true, bf16-mixed"):
        stages._require_precision(OmegaConf.create({"trainer": {"precision": precision}}))
