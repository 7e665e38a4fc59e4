"""detectron2-sam train from its command line to its files, around the engine's stand-in model."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.commands.train import run as train_run
from detectron2_sam.methods import full_cfg, own_cfg
from sam_common.config import get_cfg
from sam_common.engine.checkpoint import last_checkpoint, read_checkpoint
from sam_common.errors import Interrupted, UserError
from tests.support import standin
from tests.support.standin import EVENTS, arguments


@pytest.fixture(autouse=True)
def stand_in() -> Iterator[None]:
    with standin.installed():
        yield


def metrics(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def assert_same(first: object, second: object, path: str = "") -> None:
    """Equal to the last bit, whatever the nesting."""
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path  # type: ignore[attr-defined]
        for key in first:
            assert_same(first[key], second[key], f"{path}/{key}")  # type: ignore[index]
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), path  # type: ignore[arg-type]
        for index, pair in enumerate(zip(first, second, strict=True)):  # type: ignore[call-overload]
            assert_same(*pair, f"{path}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path  # type: ignore[arg-type]
    else:
        assert first == second, path


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimizer, counters, metrics and frozen hashes of the two last checkpoints are identical."""
    contents = [read_checkpoint(output / "model_final.pth") for output in (first, second)]
    for content in contents:
        del content["config"]  # holds OUTPUT_DIR
    assert_same(*contents)


def test_a_run_leaves_what_detectron2_leaves(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Files, keys of metrics.json, events, progress line, first log line, report and copypaste of one whole run."""
    output = tmp_path / "run"
    results = train_net.main(arguments(output, "TEST.EVAL_PERIOD", "2"))
    assert results["standin"]["regression"]["n"] == standin.NUM_IMAGES

    assert {path.name for path in output.iterdir() if "tfevents" not in path.name} == {
        *(".lock", "config.yaml", "log.txt", "metrics.json", "last_checkpoint", "inference"),
        *("model_0000002.pth", "model_final.pth"),
    }
    assert last_checkpoint(output) == output / "model_final.pth"

    lines = metrics(output)
    assert [line["iteration"] for line in lines] == [1, 3, 5, 5]  # two evaluations, the losses, the last evaluation
    losses = next(line for line in lines if "total_loss" in line)
    assert losses.keys() == {
        *("iteration", "total_loss", "loss_a", "loss_b", "lr", "time", "data_time", "eta_seconds", "max_mem", "skipped")
    }
    assert losses["total_loss"] == pytest.approx(losses["loss_a"] + losses["loss_b"])
    assert losses["lr"] == 0.05 and losses["eta_seconds"] == 0 and losses["max_mem"] > 10
    assert lines[-1].keys() == {"iteration", "regression/mean", "regression/n"}

    events = EventAccumulator(str(output)).Reload()
    assert events.Scalars("total_loss")[0].value == pytest.approx(losses["total_loss"])

    log = capsys.readouterr().out
    first = r"^\[.*\] engine: fabric .*device: cpu; precision: float32; processes: 1, .*; kernels: none; torch "
    assert re.search(first, log)
    assert re.search(r"eta: 0:00:00  iter: 6/6  total_loss: \S+  loss_a: \S+  loss_b: .* lr: 0.05  mem: \d+M\n", log)
    mean = results["standin"]["regression"]["mean"]
    assert "copypaste: Task: regression\n" in log and f"copypaste: {mean:.4f},12.0000,nan\n" in log
    assert (output / "log.txt").read_text() == log

    report = json.loads((output / "inference" / "standin" / "results.json").read_text())
    assert report["iteration"] == 5 and report["seed"] == 0 and report["vocabulary"] == ["dog", "sky"]
    assert report["results"]["regression"]["nothing"] is None


def test_config_yaml_can_be_loaded_again(tmp_path: Path) -> None:
    """The file in OUTPUT_DIR gives the very configuration of the run."""
    train_net.main(arguments(tmp_path / "run"))
    cfg, content = get_cfg(), read_checkpoint(tmp_path / "run" / "model_final.pth")
    standin.METHOD.add_config(cfg)
    cfg.merge_from_file(tmp_path / "run" / "config.yaml")
    assert cfg.dump() == content["config"] and cfg.SOLVER.MAX_ITER == 6
    assert content["config_file"] == "configs/possam_base.yaml"


def test_resume_continues_bit_for_bit(tmp_path: Path) -> None:
    """Six iterations straight, and three, a new process's worth of state, and three more: identical checkpoints."""
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    train_net.main(arguments(straight))
    train_net.main(arguments(parts))
    (parts / "model_final.pth").unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")  # as after a kill in iteration 5
    torch.manual_seed(12345)
    train_net.main(arguments(parts, flags=("--resume",)))
    assert_same_run(straight, parts)


def test_resume_of_a_finished_run_only_evaluates(tmp_path: Path) -> None:
    """Nothing is trained, the results are the same again."""
    first = train_net.main(arguments(tmp_path / "run"))
    second = train_net.main(arguments(tmp_path / "run", flags=("--resume",)))
    assert first["standin"]["regression"]["mean"] == second["standin"]["regression"]["mean"]


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    """A job script may always say --resume."""
    train_net.main(arguments(tmp_path / "straight"))
    train_net.main(arguments(tmp_path / "resumed", flags=("--resume",)))
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_random_seed_is_recorded_and_kept_by_resume(tmp_path: Path) -> None:
    """SEED -1 draws one; config.yaml holds it, a resumed run goes on with it, a run with it as SEED is the same run."""
    drawn, again = tmp_path / "drawn", tmp_path / "again"
    train_net.main(arguments(drawn, "SEED", "-1", "SOLVER.MAX_ITER", "3"))
    seed = read_checkpoint(drawn / "model_final.pth")["seed"]
    assert seed >= 0 and f"SEED: {seed}\n" in (drawn / "config.yaml").read_text()
    train_net.main(arguments(drawn, "SEED", "-1", flags=("--resume",)))
    train_net.main(arguments(again, "SEED", str(seed)))
    assert_same_run(drawn, again)


@pytest.mark.parametrize("call", [5, 11, 12, 23])  # in iterations 1, 2 (a checkpoint is due), 3, and 5, the last
def test_sigterm_saves_and_the_rest_is_bit_for_bit(tmp_path: Path, call: int) -> None:
    """The iteration is finished and saved, the message says how to go on, and nothing of the run is lost."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_net.main(arguments(straight))
    EVENTS[call, "train"] = standin.terminate
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=f"after iteration {call // 4 + 1} of 6; .* and --resume") as stop:
        train_net.main(arguments(stopped))
    assert stop.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler
    assert last_checkpoint(stopped) == stopped / ("model_final.pth" if call == 23 else f"model_{call // 4:07d}.pth")
    assert "and --resume" in (stopped / "log.txt").read_text()
    EVENTS.clear()
    train_net.main(arguments(stopped, flags=("--resume",)))
    assert_same_run(straight, stopped)


def test_sigterm_in_an_evaluation_saves_too(tmp_path: Path) -> None:
    """The evaluation is dropped, not the four iterations before it."""
    EVENTS[3, "test"] = standin.terminate
    with pytest.raises(Interrupted, match="after iteration 4 of 6"):
        train_net.main(arguments(tmp_path, "TEST.EVAL_PERIOD", "4"))
    assert read_checkpoint(tmp_path / "model_0000003.pth")["iteration"] == 3
    assert not (tmp_path / "inference").exists()


def test_a_signal_to_a_data_worker_changes_nothing(tmp_path: Path) -> None:
    """Schedulers signal every process; the workers must live until the parent has saved."""
    EVENTS[2, "train"] = standin.terminate  # this worker's own third image
    train_net.main(arguments(tmp_path / "signalled", "DATALOADER.NUM_WORKERS", "1"))
    EVENTS.clear()
    train_net.main(arguments(tmp_path / "quiet"))
    assert_same_run(tmp_path / "signalled", tmp_path / "quiet")


def test_a_nan_loss_skips_the_step_and_names_the_image(tmp_path: Path) -> None:
    """Weights pass the bad iteration unchanged; it is counted; the log names the images of its batch."""
    clean, bad = tmp_path / "clean", tmp_path / "bad"
    train_net.main(arguments(clean, "SOLVER.MAX_ITER", "3"))
    EVENTS[13, "train"] = standin.nan
    train_net.main(arguments(bad, "SOLVER.MAX_ITER", "4"))
    before, after = (read_checkpoint(output / "model_final.pth") for output in (clean, bad))
    assert (after["skipped"], after["skipped_in_a_row"], after["iteration"]) == (1, 1, 3)
    for name in ("head.weight", "head.bias", "norm.weight", "norm.bias"):
        assert torch.equal(before["model"][name], after["model"][name])
    assert_same(before["optimizer"]["state"], after["optimizer"]["state"])
    log = (bad / "log.txt").read_text()
    assert re.search(r"iteration 3 skipped: loss_a, loss_b, gradient not finite; images: image_\d+\.jpg, ", log)
    assert metrics(bad)[0]["skipped"] == 1 and metrics(bad)[0]["total_loss"] > 0


def test_ten_nan_in_a_row_end_the_run_and_save_it(tmp_path: Path) -> None:
    """Iterations 2 to 11 are bad: nine of them pass, the tenth ends the run; one good one starts the count anew."""
    for call in (*range(8, 44), *range(48, 88)):  # iterations 2-10 (nine), 12-21 (ten)
        EVENTS[call, "train"] = standin.nan
    with pytest.raises(UserError, match=r"10 iterations in a row .*image_\d+\.jpg.*model_0000021\.pth") as error:
        train_net.main(arguments(tmp_path, "SOLVER.MAX_ITER", "40"))
    assert "\n" not in str(error.value)
    content = read_checkpoint(tmp_path / "model_0000021.pth")
    assert content["skipped"] == 19 and content["iteration"] == 21


def test_a_broken_file_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """The error of iteration 4 comes after a checkpoint of the four before it; mended, the run is the straight one."""

    def broken(*_: object) -> None:
        raise UserError("image_7.jpg cannot be read")

    train_net.main(arguments(tmp_path / "straight"))
    EVENTS[17, "train"] = broken
    with pytest.raises(UserError, match=r"^image_7.jpg cannot be read; .*model_0000003\.pth.*--resume") as error:
        train_net.main(arguments(tmp_path / "parts"))
    assert "\n" not in str(error.value)
    EVENTS.clear()
    train_net.main(arguments(tmp_path / "parts", flags=("--resume",)))
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_any_exception_of_a_mapper_is_a_line_about_the_picture(tmp_path: Path, workers: str) -> None:
    """As a codec's of its own kind, in iteration 4: the picture and the state are named, and log.txt has the traceback
    where there is one; mended, the run is the straight one."""

    def broken(*_: object) -> None:
        raise SyntaxError("not a TIFF file")

    train_net.main(arguments(tmp_path / "straight"))
    EVENTS[17, "train"] = broken
    pattern = r"^image_\d+\.jpg .*SyntaxError: not a TIFF file; .*model_0000003\.pth"
    with pytest.raises(UserError, match=pattern):
        train_net.main(arguments(tmp_path / "parts", "DATALOADER.NUM_WORKERS", workers))
    assert ("Traceback" in (tmp_path / "parts" / "log.txt").read_text()) == (workers == "0")
    EVENTS.clear()
    train_net.main(arguments(tmp_path / "parts", flags=("--resume",)))
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.parametrize("kind", [torch.cuda.OutOfMemoryError, ZeroDivisionError])
def test_a_step_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """A forward that has counted itself and then fails, in iteration 4: the state is that after iteration 3, and no
    memory is one line, another error itself."""
    train_net.main(arguments(tmp_path / "straight"))
    original = standin.StandIn.forward

    def failing(model: standin.StandIn, *args: Any, **context: Any) -> Any:
        losses = original(model, *args, **context)
        if model.training and model.steps == 5:
            raise kind("no more")
        return losses

    monkeypatch.setattr(standin.StandIn, "forward", failing)
    with pytest.raises(UserError if kind is not ZeroDivisionError else kind, match="no more"):
        train_net.main(arguments(tmp_path / "parts"))
    assert last_checkpoint(tmp_path / "parts") == tmp_path / "parts" / "model_0000003.pth"
    assert "model_0000003.pth" in (tmp_path / "parts" / "log.txt").read_text()
    monkeypatch.undo()
    with standin.installed():
        train_net.main(arguments(tmp_path / "parts", flags=("--resume",)))
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_under_the_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The file is named, the status is 2, and logging has nothing to add."""
    (tmp_path / "log.txt").symlink_to("/dev/full")
    assert run_tool(lambda: train_net.main(arguments(tmp_path))) == 2
    assert re.fullmatch(r"error: .*log\.txt.*\n", capsys.readouterr().err)


def test_a_disk_without_room_for_a_checkpoint_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first iteration."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=str(tmp_path)):
        train_net.main(arguments(tmp_path))
    assert not metrics(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("iteration", "three"), ("seed", None), ("metrics", []), ("metrics", {"best": {"value": "high"}})),
        *(("losses", [1.0]), ("scaler", 3), ("optimizer", []), ("optimizer", {"param_groups": 3, "state": {}})),
        *(("frozen_sha256", "abc"), ("skipped", -1)),
    ],
)
def test_a_damaged_state_is_one_line(tmp_path: Path, name: str, value: object) -> None:
    """An entry of another kind, or none: the file is named."""
    train_net.main(arguments(tmp_path, "SOLVER.MAX_ITER", "1"))
    path = tmp_path / "model_final.pth"
    content = read_checkpoint(path)
    torch.save({**content, name: value}, path)
    with pytest.raises(UserError, match=r"model_final\.pth") as error:
        train_net.main(arguments(tmp_path, flags=("--resume",)))
    assert "\n" not in str(error.value)
    del content[name]
    torch.save(content, path)
    if name in ("losses", "frozen_sha256"):  # files of earlier versions lack them
        train_net.main(arguments(tmp_path, flags=("--resume",)))
        return
    with pytest.raises(UserError, match=rf"model_final\.pth .*{name}.*MODEL.WEIGHTS"):
        train_net.main(arguments(tmp_path, flags=("--resume",)))


def test_moments_of_other_shapes_are_refused(tmp_path: Path) -> None:
    """Of one parameter, in the optimizer's state."""
    train_net.main(arguments(tmp_path, "SOLVER.MAX_ITER", "1"))
    content = read_checkpoint(tmp_path / "model_final.pth")
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(7)
    torch.save(content, tmp_path / "model_final.pth")
    with pytest.raises(UserError, match=r"model_final\.pth .*MODEL.WEIGHTS"):
        train_net.main(arguments(tmp_path, flags=("--resume",)))


@pytest.mark.parametrize("name", [b"\xff\xfe", b"", b"../model_final.pth", b"model_0000009.pth", b"a\0b"])
def test_a_damaged_pointer_is_one_line(tmp_path: Path, name: bytes) -> None:
    """`last_checkpoint` that is no text, or names no file of the folder."""
    train_net.main(arguments(tmp_path, "SOLVER.MAX_ITER", "1"))
    (tmp_path / "last_checkpoint").write_bytes(name)
    with pytest.raises(UserError, match="last_checkpoint") as error:
        train_net.main(arguments(tmp_path, flags=("--resume",)))
    assert "\n" not in str(error.value)


def test_eval_only_gives_the_results_of_training(tmp_path: Path) -> None:
    """From MODEL.WEIGHTS, and from the last checkpoint with --resume; the run's own files stay as they are."""
    run = tmp_path / "run"
    trained = train_net.main(arguments(run))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    given = train_net.main(arguments(run, "MODEL.WEIGHTS", str(run / "model_final.pth"), flags=("--eval-only",)))
    last = train_net.main(arguments(run, flags=("--eval-only", "--resume")))
    for results in (given, last):
        assert results["standin"]["regression"]["mean"] == trained["standin"]["regression"]["mean"]
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    report = json.loads((run / "inference" / "standin" / "results.json").read_text())
    assert report["checkpoint"].endswith("model_final.pth") and report["iteration"] == 5


def test_finetuning_starts_from_the_weights_at_iteration_zero(tmp_path: Path) -> None:
    """MODEL.WEIGHTS gives the trained part only: with a learning rate of zero the weights come out as they went in."""
    train_net.main(arguments(tmp_path / "first"))
    weights = str(tmp_path / "first" / "model_final.pth")
    train_net.main(arguments(tmp_path / "second", "MODEL.WEIGHTS", weights, "SOLVER.BASE_LR", "0.0"))
    first, second = (read_checkpoint(tmp_path / name / "model_final.pth") for name in ("first", "second"))
    assert torch.equal(first["model"]["head.weight"], second["model"]["head.weight"])
    assert second["iteration"] == 5


def test_weights_beside_another_frozen_part_are_refused(tmp_path: Path) -> None:
    """Another seed initialises another frozen encoder here."""
    train_net.main(arguments(tmp_path / "first"))
    weights = str(tmp_path / "first" / "model_final.pth")
    with pytest.raises(UserError, match="other frozen weights: encoder"):
        train_net.main(arguments(tmp_path / "second", "MODEL.WEIGHTS", weights, "SEED", "1"))


@pytest.mark.parametrize(
    ("flags", "words", "message"),
    [
        (("--engine", "lightning"), (), "--engine lightning is unknown"),
        (("--num-gpus", "2"), ("MODEL.DEVICE", "auto"), "there is no GPU; for CPU processes add MODEL.DEVICE cpu"),
        (("--num-gpus", "0"), (), "--num-gpus is 0"),
        (("--num-gpus", "many"), (), "invalid int value"),
        (("--num-machines", "2"), (), "need tcp://HOST:PORT"),
        (("--num-machines", "2", "--machine-rank", "2", "--dist-url", "tcp://a:1"), (), "it is 0 to 1"),
        ((), ("SOLVER.BASE_LR",), "KEY VALUE pairs"),
        ((), ("SOLVER.BASE_RATE", "1"), "nearest known one is SOLVER.BASE_LR"),
        ((), ("DATASETS.TRAIN", "('standing',)"), "did you mean standin"),
        ((), ("DATASETS.TRAIN", "()"), "DATASETS.TRAIN is empty"),
        ((), ("MODEL.META_ARCHITECTURE", "Nothing"), "'Nothing' is unknown"),
        ((), ("SOLVER.OPTIMIZER", "SGD"), "choose one of ADAMW"),
        ((), ("SOLVER.ACCUMULATE", "0"), "SOLVER.ACCUMULATE is 0; give at least 1"),
        ((), ("SOLVER.ACCUMULATE", "3"), "a positive multiple of the 1 processes times SOLVER.ACCUMULATE 3"),
        ((), ("SOLVER.AMP.PRECISION", "fp16"), "a CPU trains in float32 or bf16"),
        ((), ("SOLVER.LR_SCHEDULER_NAME", "Step"), "WarmupMultiStepLR, WarmupCosineLR"),
        ((), ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value"), "full_model"),
        ((), ("DATALOADER.NUM_WORKERS", "-1"), "DATALOADER.NUM_WORKERS is -1; give at least 0"),
        ((), ("MODEL.DEVICE", "gpu"), "choose auto, cpu, cuda or cuda:N"),
        ((), ("MODEL.WEIGHTS", "nowhere.pth"), "there is no checkpoint nowhere.pth"),
        (("--eval-only",), ("DATASETS.TEST", "()"), "DATASETS.TEST is empty"),
        (("--eval-only",), (), "MODEL.WEIGHTS is empty"),
        (("--eval-only", "--resume"), (), "MODEL.WEIGHTS is empty"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    flags: tuple[str, ...],
    words: tuple[str, ...],
    message: str,
) -> None:
    """Exit status 2 and one line on stderr that says what to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_tool(lambda: train_net.main(arguments(tmp_path / "run", *words, flags=flags))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_used_output_dir_is_refused(tmp_path: Path) -> None:
    """One file is enough; it is named and stays; an empty folder is fine."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=f"OUTPUT_DIR {tmp_path} is not empty; go on with --resume"):
        train_net.main(arguments(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    train_net.main(arguments(tmp_path / "empty"))


def test_a_run_that_never_began_is_in_nobodys_way(tmp_path: Path) -> None:
    """A mistake that is found late leaves a log and no iteration; the corrected command goes to the same folder."""
    with pytest.raises(UserError):
        train_net.main(arguments(tmp_path, "SOLVER.IMS_PER_BATCH", "0"))
    assert {path.name for path in tmp_path.iterdir()} >= {"config.yaml", "log.txt"}
    train_net.main(arguments(tmp_path))


@pytest.fixture
def spawning(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The tool starts processes that know the stand-in."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(train_run, "run", standin.run)
    return monkeypatch


def test_two_cpu_processes_train_as_one(tmp_path: Path, spawning: pytest.MonkeyPatch) -> None:
    """Same global batch: losses, weights and results within 1e-5, and each image evaluated once."""
    one, two = tmp_path / "one", tmp_path / "two"
    alone = train_net.main(arguments(one))
    together = train_net.main(arguments(two, flags=("--num-gpus", "2")))
    assert "processes: 2, 1 threads each" in (two / "log.txt").read_text()
    first, second = (metrics(output) for output in (one, two))
    for line in (0, 1):
        for key in set(first[line]) - {"time", "data_time", "max_mem"}:
            assert first[line][key] == pytest.approx(second[line][key], abs=1e-5), key
    for name in ("mean", "n"):
        expected = pytest.approx(alone["standin"]["regression"][name], abs=1e-5)
        assert together["standin"]["regression"][name] == expected
    weights = [read_checkpoint(output / "model_final.pth")["model"] for output in (one, two)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flags", [(), ("--num-gpus", "2")])
def test_accumulated_parts_train_as_one_batch(
    tmp_path: Path, spawning: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """Same IMS_PER_BATCH in two parts, on one process or on two: weights and moments within 1e-5 of those in one go."""
    train_net.main(arguments(tmp_path / "whole"))
    train_net.main(arguments(tmp_path / "parts", "SOLVER.ACCUMULATE", "2", flags=flags))
    whole, parts = (read_checkpoint(tmp_path / name / "model_final.pth") for name in ("whole", "parts"))
    del whole["model"]["steps"], parts["model"]["steps"]  # it counts forwards
    for content in (whole, parts):
        content["moments"] = content["optimizer"]["state"]
    for key in ("model", "moments"):
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-5, atol=1e-6)
    lines = (metrics(tmp_path / name) for name in ("whole", "parts"))
    first, second = (next(line["total_loss"] for line in run if "total_loss" in line) for run in lines)
    assert second == pytest.approx(first, rel=1e-5)


def test_bfloat16_trains_on_a_cpu_when_asked_for(tmp_path: Path) -> None:
    """The first line of the log names it; results come out near those in float32, not equal to them."""
    means = []
    for name in ("auto", "bf16"):
        results = train_net.main(arguments(tmp_path / name, "SOLVER.AMP.PRECISION", name, "SOLVER.MAX_ITER", "30"))
        means.append(results["standin"]["regression"]["mean"])
    assert "precision: bf16-mixed" in (tmp_path / "bf16" / "log.txt").read_text()
    assert means[0] != means[1] == pytest.approx(means[0], abs=0.05)


def test_all_ranks_skip_together(tmp_path: Path, spawning: pytest.MonkeyPatch) -> None:
    """One image of rank 1 is NaN: both skip, name its share of images, and end as one process does that meets it."""
    EVENTS[14, "train"] = standin.nan  # the third of the four images of iteration 3: rank 1's first
    train_net.main(arguments(tmp_path / "one"))
    EVENTS.clear()
    spawning.setattr(train_run, "run", standin.run_with_nan_at_rank_1)
    train_net.main(arguments(tmp_path / "two", flags=("--num-gpus", "2")))
    one, two = (read_checkpoint(tmp_path / name / "model_final.pth") for name in ("one", "two"))
    assert one["skipped"] == two["skipped"] == 1
    torch.testing.assert_close(two["model"], one["model"], rtol=1e-5, atol=1e-6)
    lines = [
        next(line for line in (tmp_path / name / "log.txt").read_text().splitlines() if "iteration 3 skipped" in line)
        for name in ("one", "two")
    ]
    assert lines[0].split("]")[1] == lines[1].split("]")[1] and lines[0].count("image_") == 4


def test_sigterm_reaches_the_processes_and_one_process_goes_on(tmp_path: Path, spawning: pytest.MonkeyPatch) -> None:
    """The parent passes the signal on, both ranks leave after one iteration, and its checkpoint fits one process."""
    spawning.setattr(train_run, "run", standin.run_and_terminate_parent)
    with pytest.raises(Interrupted, match="stopped after iteration") as stop:
        train_net.main(arguments(tmp_path, "SOLVER.MAX_ITER", "1000000", flags=("--num-gpus", "2")))
    assert stop.value.signum == signal.SIGTERM
    iteration = read_checkpoint(last_checkpoint(tmp_path) or "")["iteration"]
    spawning.setattr(train_run, "run", standin.run)
    train_net.main(arguments(tmp_path, "SOLVER.MAX_ITER", str(iteration + 2), flags=("--resume",)))
    assert read_checkpoint(tmp_path / "model_final.pth")["iteration"] == iteration + 1


def test_keys_of_detectron2_name_its_engine() -> None:
    """A Detectron2 key under our engine: the message says which command knows it."""
    with pytest.raises(UserError, match=r"VIS_PERIOD.*--engine detectron2"):
        full_cfg(options=["VIS_PERIOD", "1"])


def test_the_keys_of_one_method() -> None:
    """A run keeps the shared keys and its own, with their values; those of the other methods are gone."""
    cfg = full_cfg()
    options = {"MODEL.META_ARCHITECTURE": "VanillaSAM", "MODEL.PLUG.LORA_RANK": "4", "INPUT.IMAGE_SIZE": "64"}
    cfg.merge_from_list([word for pair in options.items() for word in pair])
    own = own_cfg(cfg)
    assert own.MODEL.keys() == {*get_cfg().MODEL, "PLUG"}
    assert own.INPUT.BOXES.keys() == {"JITTER_TRAIN", "JITTER_TEST", "SOURCE", "SCORE_THRESHOLD", "MATCH_IOU"}
    assert (own.MODEL.PLUG.LORA_RANK, own.INPUT.IMAGE_SIZE, own.INPUT.INSTANCES_PER_IMAGE) == (4, 64, 8)
