"""The batch script and what is checked before it, without SLURM."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config
from pipeline.config import RunConfig
from pipeline.launchers import scheduler, slurm, start
from pipeline.launchers.folder import JobFolder
from pipeline.launchers.preflight import check_run, fit_to_cluster
from pipeline.launchers.scheduler import Partition
from tests.training.toy import ROOT


def digits(output: Path, *words: str) -> RunConfig:
    small = ["--cluster.gpus_per_node", "0", "--output", str(output)]
    return config.load(ROOT / "configs" / "digits.yaml", [*small, *words])


def script(output: Path, *words: str) -> list[str]:
    return slurm.script(digits(output, *words), JobFolder(output / "jobs" / "001")).splitlines()


def test_every_key_reaches_sbatch(tmp_path: Path) -> None:
    lines = script(
        tmp_path, "--cluster.nodes", "4", "--cluster.gpus_per_node", "8", "--cluster.partition",
        "gpu,long", "--cluster.account", "lab", "--cluster.qos", "high", "--cluster.time", "2-12",
        "--cluster.constraint", "h100", "--cluster.exclusive", "true", "--cluster.cpus_per_task",
        "12", "--cluster.memory", "480G", "--cluster.signal_seconds", "120",
        "--cluster.sbatch", "{mail-type: END, no_kill: true, hold: false}",
    )  # fmt: skip
    flags = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert flags >= {
        "nodes=4", "gpus-per-node=8", "ntasks-per-node=8", "partition=gpu,long", "account=lab",
        "qos=high", "time=3600", "constraint=h100", "exclusive", "cpus-per-task=12", "mem=480G",
        "signal=USR2@120", "mail-type=END", "no-kill", "requeue", "open-mode=append",
    }  # fmt: skip
    assert not any(flag.startswith("hold") for flag in flags)
    (srun,) = [line for line in lines if line.startswith("srun --")]
    for word in ("--kill-on-bad-exit=1", "--open-mode=append", "--cpus-per-task=12"):
        assert f" {word} " in srun


def test_requeue_off(tmp_path: Path) -> None:
    assert "#SBATCH --no-requeue" in script(tmp_path, "--cluster.requeue", "false")


def test_the_shell_prepares_the_tasks_and_judges_afterwards(tmp_path: Path) -> None:
    """The lines before and after srun, run by a real shell with a false srun and python."""
    odd = tmp_path / "it's odd"
    words = ["--cluster.setup", "[export MODULE=loaded]", "--cluster.environment.NCCL_DEBUG", "a b"]
    lines = script(odd, *words)
    told = tmp_path / "told"
    text = "\n".join(lines).replace(slurm.PYTHON, "false_python")
    programs = {
        "srun": f"""
            echo "$MODULE|$NCCL_DEBUG|$PYTHONPATH" >> {told}; kill -TERM $PPID; sleep 2
            echo ends >> {told}; exit 143""",
        "false_python": f'echo "judge $*" >> {told}',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    prepared, *judged = told.read_text().splitlines()
    assert prepared == f"loaded|a b|{odd}/jobs/001/code"
    judge = f"judge -m pipeline.launchers.afterwards {odd}/jobs/001"
    assert judged == [f"{judge} TERM", "ends", f"{judge} 143"]  # it waits for srun all the same


def test_without_snapshot_tasks_import_the_checkout(tmp_path: Path) -> None:
    assert any(
        line.startswith(f"export PYTHONPATH={ROOT}")
        for line in script(tmp_path, "--cluster.snapshot", "false")
    )


def test_the_snapshot_is_what_tasks_import(tmp_path: Path) -> None:
    folder = slurm.make_folder(digits(tmp_path))
    assert (folder.code / "launch" / "train.py").is_file()
    assert config.load(folder.config) == digits(tmp_path)
    # Started in the checkout, as sbatch starts it, and still the copy is imported.
    where = "import pipeline.run; print(pipeline.run.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", where], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(folder.code), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == str(folder.code / "pipeline" / "run.py")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.val", "none.beton"], "data.val: data file none.beton does not exist"),
        (["--data.train", "imagenet:/nowhere"], "data.train imagenet:/nowhere: there is no"),
        (["--data.train", "digit"], "data.train: data 'digit' is not a source"),
        (["--cluster.nodes", "3"], "must be divisible by processes x training.accumulation = 3 x"),
        (["--training.warmup_epochs", "40"], "warmup_epochs"),
        (["--model.widht", "3"], "widht"),
        (["--objective.name", "emm"], "emm"),
        (["--task", "certify"], "holds no run to certify"),
    ],
)
def test_what_cannot_work_is_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        check_run(digits(tmp_path, *words))
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_can_work_passes(tmp_path: Path) -> None:
    check_run(digits(tmp_path, "--cluster.nodes", "4"))


def test_a_directory_of_another_run_is_refused_before_queueing(tmp_path: Path) -> None:
    (tmp_path / "digits" / "checkpoints" / "step_000003").mkdir(parents=True)
    config.save(digits(tmp_path), tmp_path / "digits" / "config.yaml")
    check_run(digits(tmp_path, "--cluster.nodes", "2", "--cluster.time", "99"))
    with pytest.raises(ValueError, match="seed: 0 there, 5 here"):
        check_run(digits(tmp_path, "--seed", "5"))


def test_a_run_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^output: .* cannot be written .*choose another folder"):
        slurm.make_folder(digits(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"^output .* cannot be written .*choose another --output"):
        check_run(digits(tmp_path / "file"))


@pytest.fixture
def partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "short": Partition("short", True, 4, 240, 8),
        "cpu": Partition("cpu", False, 90, None, 0),
    }
    monkeypatch.setattr(scheduler, "partitions", lambda: known)


def test_a_time_over_the_limit_becomes_a_chain(partitions: None, tmp_path: Path) -> None:
    fitted, notes = fit_to_cluster(digits(tmp_path))
    assert fitted.cluster.minutes == 240
    assert notes == [
        "partition short ends jobs after 240 minutes, and cluster.time is 1-00:00:00: the run will "
        "be a chain of jobs of that length"
    ]
    short = digits(tmp_path, "--cluster.time", "3:00:00")
    assert fit_to_cluster(short) == (short, [])
    endless = digits(tmp_path, "--cluster.partition", "cpu", "--cluster.time", "UNLIMITED")
    assert fit_to_cluster(endless) == (endless, [])


def test_gpus_that_a_partition_lacks(partitions: None, tmp_path: Path) -> None:
    words = ["--cluster.partition", "cpu", "--cluster.gpus_per_node", "8"]
    with pytest.raises(ValueError, match=r"take --gpus-per-node 0 and set cluster\.tasks_per_node"):
        fit_to_cluster(digits(tmp_path, *words))


def test_partitions_are_read_as_sinfo_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        "gpu*|2-00:00:00|3|gpu:h100:8(S:0-1)",
        "gpu*|2-00:00:00|5|gpu:a100:4,shard:8",
        "cpu|infinite|7|(null)",
    ]
    monkeypatch.setattr(scheduler, "call", lambda *words: "\n".join(rows))
    assert scheduler.partitions() == {
        "gpu": Partition("gpu", True, 8, 2880, 8),
        "cpu": Partition("cpu", False, 7, None, 0),
    }


def test_without_slurm_it_says_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"--local runs the same job .* --dry-run prints"):
        start.submit(digits(tmp_path), [], watch=False)
    assert start.print_script(digits(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n")
    assert not list(tmp_path.iterdir())


def test_the_door_with_only_nodes_is_the_imagenet_recipe() -> None:
    words = [sys.executable, "launch/slurm.py", "--nodes", "4", "--dry-run", "--time", "2:30:00"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in ("nodes=4", "gpus-per-node=8", "ntasks-per-node=8", "job-name=imagenet_liresnet"):
        assert f"#SBATCH --{line}\n" in done.stdout
    assert "#SBATCH --time=150\n" in done.stdout


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'task' has the value 'ddpm'"):
        digits(tmp_path, "--task", "ddpm")
