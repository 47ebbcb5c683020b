"""stage=test of train.py: measures the generator, or the vocoder, of a checkpoint."""

import json
import logging
from pathlib import Path

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.commands import command
from specgan.files import Outputs, composed, write_json
from specgan.models.shared import is_shared
from specgan.models.trained import TrainedGenerator, is_vocoder, level_range_of
from specgan.training.settings import SETTINGS_NAME, composed_for
from specgan.training.stages import begin

log = logging.getLogger(__name__)


def test(cfg: DictConfig, *, generator: str | Path | None = None) -> float | None:
    """Measures the generator of a checkpoint; writes report.json, report.html and report.png into its run's folder.

    With evaluation.listening also listening.html, on which people rate sounds, and listening_key.json.

    Settings of data and measuring are those that the run was started with (its settings.json); what the command line
    says takes precedence. A shared generator has no run: all of them, and the folder, are of the command line. A
    checkpoint of model=vocoder is measured by `test_vocoder`.

    Args:
        cfg: the composed configuration.
        generator: for `test_vocoder`.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint, it does not fit the data, or a file is in the way that no
            earlier measurement wrote.
    """
    from specgan.evaluation.listening import PAGE_NAME, write_listening
    from specgan.evaluation.page import write_overview, write_report
    from specgan.evaluation.ratings import KEY_NAME
    from specgan.evaluation.tables import as_text

    if cfg.ckpt_path is None:
        raise ValueError("ckpt_path is not set; name the checkpoint to measure: ckpt_path=<run>/checkpoints/best.ckpt")
    if is_vocoder(cfg.ckpt_path):
        test_vocoder(cfg, Path(cfg.ckpt_path), generator)
        return None
    if generator is not None:
        raise ValueError(
            f"stage.generator is {generator}, but {cfg.ckpt_path} holds no vocoder of model=vocoder to try on it"
        )
    # A network of your own is run if the command line names it, not because the checkpoint does.
    trained = TrainedGenerator.load(cfg.ckpt_path, network=OmegaConf.select(cfg, "generator._target_"))
    run_dir = Path(cfg.ckpt_path).absolute().parent.parent
    if is_shared(cfg.ckpt_path):
        run_dir = Path(cfg.paths.run_dir)
    elif kept := composed_for(run_dir):
        cfg = kept
    else:
        log.warning(
            "%s: no such file, so data and spectrogram are taken from the command line", run_dir / SETTINGS_NAME
        )
        run_dir = Path(cfg.paths.run_dir)
    evaluation = instantiate(cfg.evaluation, _convert_="all")
    outputs, names = Outputs(run_dir, "test"), ["report.json", "report.html", "report.png"]
    names += [PAGE_NAME, KEY_NAME] if evaluation.report_settings.listening else []
    outputs.require_free(names)
    begin(cfg)
    datamodule = instantiate(cfg.data, _convert_="all")
    datamodule.fixed_range = trained.level_range
    datamodule.prepare_data()
    datamodule.setup("test")
    require_same_data(trained, datamodule)
    evaluator = evaluation.of(datamodule)
    report, examples = evaluator.report(trained.sample_indices)
    report["warnings"] += [datamodule.range_note] if datamodule.range_note else []
    curve = run_dir / "curve.json"
    report |= {
        "checkpoint": str(cfg.ckpt_path),
        "n_steps": trained.n_steps,
        "curve": json.loads(curve.read_text(encoding="utf-8")) if curve.is_file() else [],
    }
    outputs.claim(names)
    write_json(run_dir / "report.json", report, indent=2, allow_nan=False)
    write_report(run_dir / "report.html", report, examples=examples, sample_rate=evaluator.clips.sample_rate)
    real = "real" if "real" in report["rows"] else "vocoded"
    write_overview(run_dir / "report.png", examples, kinds=[real, "generated"])
    log.info("%s", as_text(report["rows"]))
    if not report["judge"]["trusted"]:
        log.warning("the judge classifies many real clips wrong, so conditional accuracy means little here")
    for warning in report["warnings"]:
        log.warning("%s", warning)
    log.info("see and hear it: %s", run_dir / "report.html")
    if evaluator.settings.listening:
        write_listening(
            run_dir,
            evaluator.sounds_to_rate(trained.sample_indices),
            checkpoint=str(cfg.ckpt_path),
            sample_rate=evaluator.clips.sample_rate,
            seed=evaluator.recipe.seed,
        )
        log.info("give listeners this page alone: %s", run_dir / PAGE_NAME)
        log.info(
            "join what they save: %s",
            command("preprocess.py", task="listening", input="ratings", **{"task.key": run_dir / KEY_NAME}),
        )
    metrics = {f"test/{name}": figure["value"] for name, figure in report["rows"]["generated"].items()}
    return metrics.get(cfg.optimized_metric)


def test_vocoder(cfg: DictConfig, checkpoint: Path, generator: str | Path | None = None) -> None:
    """Measures the vocoder of a checkpoint of model=vocoder on test clips, beside `vocoder` of the run's settings.

    Writes vocoder.json and vocoder.html into the run's folder.

    Args:
        cfg: the composed configuration.
        checkpoint: of model=vocoder.
        generator: a checkpoint, on whose spectrograms both are tried too; None: on none.
    Raises:
        FileNotFoundError, ValueError: it was trained on other spectrograms, the data set keeps no sounds, or
            `generator` is no checkpoint of a generator.
    """
    from specgan.training.comparison import on_generated, on_recordings, write_comparison

    trained = None if generator is None else TrainedGenerator.load(generator)
    run_dir = checkpoint.absolute().parent.parent
    cfg = composed_for(run_dir) or cfg
    outputs, names = Outputs(run_dir, "test"), ["vocoder.json", "vocoder.html"]
    outputs.require_free(names)
    begin(cfg)
    datamodule = instantiate(cfg.data, _convert_="all")
    datamodule.fixed_range = level_range_of(checkpoint)
    datamodule.prepare_data()
    datamodule.setup("test")
    beside = {HydraConfig.get().runtime.choices["vocoder"]: instantiate(cfg.vocoder, _convert_="all")}
    tried = {"rows": on_recordings(datamodule, checkpoint, beside)}
    if trained is not None:
        tried["generated"] = on_generated(trained, checkpoint, beside)
    outputs.claim(names)
    rate = datamodule.params.sample_rate
    write_comparison(run_dir, tried, checkpoint=str(checkpoint), generator=str(generator), sample_rate=rate)


def require_same_data(trained: TrainedGenerator, datamodule: L.LightningDataModule) -> None:
    """Raises ValueError, with both values, if the generator was trained on spectrograms or classes of another kind."""
    differing = [
        f"{name}: checkpoint {there!r}, data set {here!r}"
        for name, there, here in (
            ("spectrogram", trained.params, datamodule.params),
            ("channels", trained.channels, datamodule.channels),
            ("class_names", *([composed(name) for name in of.class_names] for of in (trained, datamodule))),
        )
        if there != here
    ]
    if differing:
        raise ValueError(
            "the checkpoint was not trained on such data; give the data and spectrogram settings of its run. They "
            f"differ in {'; '.join(differing)}"
        )
