"""What is decided after an attempt, with a fake `scontrol` and `sbatch` on PATH."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from pipeline.launchers import afterwards
from pipeline.launchers.afterwards import decide
from pipeline.launchers.folder import JobFolder
from pipeline.launchers.scheduler import JobFacts

RUNNING = {"JobState": "RUNNING", "Restarts": "0", "RunTime": "00:10:00", "TimeLimit": "1-00:00:00"}
ENDING = {**RUNNING, "JobState": "COMPLETING", "PreemptTime": "None", "NodeList": "n[1-2]"}


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder.make(tmp_path / "run" / "jobs")
    made.describe(run_directory=str(tmp_path / "run"), tasks=3, requeue=True)
    made.record("submitted", job="7")
    return made


def left(folder: JobFolder, *statuses: int | None, attempt: str = "7.0") -> None:
    """Ranks ended with these statuses; None: without a word."""
    for rank, status in enumerate(statuses):
        folder.log(attempt, rank).parent.mkdir(exist_ok=True)
        folder.log(attempt, rank).write_text(f"rank {rank}\n")
        if status is not None:
            folder.write_status(attempt, rank, status)


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> Path:
    """Put shell scripts on PATH that also note how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, body in commands.items():
        path = programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path / "calls"


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((0, 0, 0), "finished"),
        ((75, 75, 75), "request"),
        ((0, 75, 75), "request"),
        ((0, 0, None), "fault"),  # a job can end COMPLETED although a rank was lost
        ((75, None, None), "fault"),
        ((70, 75, 75), "fault"),
        ((75, 1, None), "refused"),
        ((130, 130, 130), "cancelled"),
        ((None, None, None), "fault"),
    ],
)
def test_ranks_are_judged_by_what_they_left(
    folder: JobFolder, statuses: tuple, verdict: str
) -> None:
    left(folder, *statuses)
    assert decide(folder, "7.0", JobFacts(RUNNING)).verdict == verdict
    row = folder.history()[-1]
    assert (row["event"], row["attempt"], row["verdict"]) == ("ended", "7.0", verdict)


def test_the_sentence_of_the_rank_that_refused_is_kept(folder: JobFolder) -> None:
    left(folder, None, 1, None)
    folder.log("7.0", 1).write_text("begun\nerror: training.x 3 is wrong: take 4\nrank 1 ends\n")
    assert decide(folder, "7.0").what == "training.x 3 is wrong: take 4"


def test_the_rank_that_refused_is_heard_and_not_those_that_heard_of_it(folder: JobFolder) -> None:
    left(folder, 1, 1, 1)
    for rank in (0, 2):
        folder.log("7.0", rank).write_text("error: rank 1 on n1 ended: the loss is nan\n")
    folder.log("7.0", 1).write_text("error: the loss is nan\n")
    assert decide(folder, "7.0").what == "the loss is nan"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "cancelled"),
        ({"RunTime": "1-00:00:20"}, "request"),  # the time limit
        ({"PreemptTime": "2031-01-01T00:00:00"}, "request"),
        ({"Restarts": "1"}, "taken"),  # SLURM was faster
        ({"JobState": "PENDING"}, "taken"),
        ({"TimeLimit": "UNLIMITED"}, "cancelled"),
    ],
)
def test_a_job_that_slurm_is_ending(
    folder: JobFolder,
    changes: dict[str, str],
    verdict: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(tmp_path, monkeypatch, sinfo="echo 'n1|allocated'; echo 'n2|mixed'")
    left(folder, 75, 75, 75)
    assert decide(folder, "7.0", JobFacts({**ENDING, **changes})).verdict == verdict


@pytest.mark.parametrize(("requeue", "verdict"), [("1", "taken"), ("0", "fault")])
def test_a_lost_node_is_no_cancellation(
    folder: JobFolder, requeue: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, sinfo="echo 'n1|allocated'; echo 'n2|down*'")
    left(folder, 75, None, None)
    decision = decide(folder, "7.0", JobFacts({**ENDING, "Requeue": requeue}))
    assert decision.verdict == verdict
    if requeue == "1":
        assert "n2 was lost" in decision.what


def test_three_breakdowns_without_progress_are_the_last(folder: JobFolder, tmp_path: Path) -> None:
    def broken(number: int) -> str:
        left(folder, None, None, 75, attempt=f"7.{number}")
        return decide(folder, f"7.{number}").verdict

    assert [broken(0), broken(1)] == ["fault", "fault"]
    (tmp_path / "run" / "checkpoints" / "step_000040").mkdir(parents=True)
    assert [broken(2), broken(3)] == ["fault", "fault"]  # it came further: counted anew
    left(folder, 75, 75, 75, attempt="7.4")
    assert decide(folder, "7.4").verdict == "request"  # and by leaving in order
    assert [broken(5), broken(6), broken(7)] == ["fault", "fault", "given up"]
    last = folder.history()[-1]
    assert "3 attempts in a row broke down and came no further than step 40" in last["what"]
    assert "ranks 0, 1 ended without a word" in last["what"]


def test_a_chain_that_never_gets_anywhere_ends(folder: JobFolder) -> None:
    verdicts = []
    for number in range(10):  # such as a time limit shorter than what starting takes
        left(folder, 75, 75, 75, attempt=f"7.{number}")
        verdicts.append(decide(folder, f"7.{number}").verdict)
    assert verdicts == ["request"] * 9 + ["given up"]
    assert "10 attempts in a row came no further than the beginning" in folder.history()[-1]["what"]


def test_an_error_that_another_try_may_not_meet_is_a_breakdown(folder: JobFolder) -> None:
    left(folder, 75, 75, 75)
    folder.log("7.0", 2).write_text("error: [Errno 116] Stale file handle\n")
    decision = decide(folder, "7.0")
    assert decision.verdict == "fault" and "Stale file handle" in decision.what


def test_what_the_heartbeat_found_is_said(folder: JobFolder) -> None:
    left(folder, None, None, None)
    folder.log("7.0", 0).write_text("error: rank 2 on n2 is gone: it crashed or was killed\n")
    decision = decide(folder, "7.0")
    assert (decision.verdict, decision.what[:13]) == ("fault", "rank 2 on n2 ")


def test_preempted_without_a_moment_to_leave_is_no_fault(folder: JobFolder) -> None:
    job = JobFacts({**ENDING, "PreemptTime": "2026-11-21T12:00:00"})
    for restarts in range(4):
        left(folder, None, None, None, attempt=f"7.{restarts}")
        decision = decide(folder, f"7.{restarts}", job)
        assert (decision.verdict, decision.what) == ("request", "preempted by SLURM")
        assert decision.again


def test_a_full_disk_keeps_nobody_from_judging(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(folder, 75, 75, 75)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JobFolder, "record", full)
    assert decide(folder, "7.0").again


def test_what_is_certified_is_progress(tmp_path: Path) -> None:
    assert afterwards.progress_of(tmp_path) == "the beginning"
    (tmp_path / "checkpoints" / "step_000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step_000009.tmp").mkdir()
    assert afterwards.progress_of(tmp_path) == "step 7"
    (tmp_path / "certificate" / "bounds").mkdir(parents=True)
    (tmp_path / "certificate" / "bounds" / "0000.json").touch()
    assert afterwards.progress_of(tmp_path) == "step 7 and 1 certified layers and blocks"
    (tmp_path / "certificate" / "blocks").mkdir()
    (tmp_path / "certificate" / "blocks" / "000000.tsv").touch()
    (tmp_path / "certificate" / "products").mkdir()
    (tmp_path / "certificate" / "products" / "0003.json").touch()
    assert afterwards.progress_of(tmp_path) == "step 7 and 3 certified layers and blocks"


SHOW = "case $1 in -o) echo JobId=7 JobState=RUNNING Restarts=2 Comment=a b=c;; requeue) {};; esac"


def ended(folder: JobFolder, monkeypatch: pytest.MonkeyPatch, status: str = "143") -> int:
    """The batch script's trap."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURM_CONF", "/etc/there.conf")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    return afterwards.main([str(folder.path), status])


def test_requeue(folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(tmp_path, monkeypatch, scontrol=SHOW.format("exit 0"))
    left(folder, 75, 75, 75, attempt="7.2")
    assert ended(folder, monkeypatch) == 0
    assert "scontrol requeue 7" in calls.read_text()
    assert [row["event"] for row in folder.history()] == ["submitted", "ended", "requeued"]


@pytest.mark.parametrize("forbidden_by", ["config", "cluster"])
def test_where_requeue_is_forbidden_a_successor_is_submitted(
    folder: JobFolder, forbidden_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = "echo 'Requested operation is disabled' >&2; exit 1"
    environment = f"env > {tmp_path}/environment; echo '8;cluster'"
    calls = fake(tmp_path, monkeypatch, scontrol=SHOW.format(refuses), sbatch=environment)
    folder.describe(**{**folder.facts(), "requeue": forbidden_by == "cluster"})
    (folder.path / "7_submission.sh").write_text("script")
    (folder.path / "7_submitted.pkl").write_bytes(b"pickle")
    left(folder, 75, 75, 75, attempt="7.2")
    assert ended(folder, monkeypatch) == 0
    assert (
        f"sbatch --parsable --dependency=afterany:7 {folder.path}/7_submission.sh"
        in calls.read_text()
    )
    assert ("scontrol requeue" in calls.read_text()) == (forbidden_by == "cluster")
    assert (folder.path / "8_submitted.pkl").read_bytes() == b"pickle"
    assert (folder.path / "8_submission.sh").read_text() == "script"  # for its own successor
    assert folder.job() == "8" and folder.history()[-1]["after"] == "7"
    kept = (tmp_path / "environment").read_text()
    assert "SLURM_CONF=/etc/there.conf" in kept
    assert "SLURM_JOB_ID" not in kept and "SUBMITIT" not in kept


def test_sigterm_is_judged_only_when_slurm_is_ending_the_job(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = SHOW.format("exit 0")
    calls = fake(tmp_path, monkeypatch, scontrol=running, sinfo="exit 0")
    assert ended(folder, monkeypatch, status="TERM") == 0  # preempted, with time to leave
    assert [row["event"] for row in folder.history()] == ["submitted"]
    limit = "RunTime=01:00:00 TimeLimit=01:00:00"
    fake(tmp_path, monkeypatch, scontrol=running.replace("RUNNING", f"COMPLETING {limit}"))
    ended(folder, monkeypatch, status="TERM")
    ended(folder, monkeypatch)  # the EXIT trap finds it judged
    assert [row["event"] for row in folder.history()] == ["submitted", "ended", "requeued"]
    assert calls.read_text().count("scontrol requeue 7") == 1


@pytest.mark.parametrize("statuses", [(0, 0, 0), (1, 1, 1)])
def test_what_is_over_is_not_started_again(
    folder: JobFolder, statuses: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake(tmp_path, monkeypatch, scontrol=SHOW.format("exit 0"), sbatch="echo 8")
    left(folder, *statuses, attempt="7.2")
    ended(folder, monkeypatch)
    assert "scontrol requeue" not in calls.read_text() and "sbatch" not in calls.read_text()


def test_a_lost_node_is_asked_for_by_the_list_that_the_job_began_with(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = SHOW.format("exit 0").replace("RUNNING", "COMPLETING NodeList=n1")
    calls = fake(tmp_path, monkeypatch, scontrol=show, sinfo="echo 'n1|mixed'; echo 'n2|down*'")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    ended(folder, monkeypatch, status="TERM")
    assert "sinfo -h -N -n n[1-2]" in calls.read_text()
    assert folder.history()[1]["verdict"] == "fault"


def test_when_nothing_works_it_is_said(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = "echo 'No' >&2; exit 1"
    fake(tmp_path, monkeypatch, scontrol=refuses, sbatch="echo 'Invalid account' >&2; exit 1")
    left(folder, 75, 75, 75, attempt="7.2")
    assert ended(folder, monkeypatch) == 1
    last = folder.history()[-1]
    assert last["verdict"] == "given up" and "Invalid account" in last["what"]


def test_it_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, pipeline.launchers.afterwards as a; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_exit_statuses_are_those_of_the_ranks() -> None:
    from pipeline.outcome import Exit

    assert (afterwards.FINISHED, afterwards.REFUSED, afterwards.INTERRUPTED) == (
        Exit.FINISHED, Exit.REFUSED, Exit.INTERRUPTED,
    )  # fmt: skip
    assert os.EX_TEMPFAIL == Exit.TRY_AGAIN


def test_a_torn_row_of_the_history_is_passed_over(folder: JobFolder) -> None:
    with (folder.path / "history.jsonl").open("a") as file:
        file.write(json.dumps({"event": "ended"})[:9])
    assert [row["event"] for row in folder.history()] == ["submitted"]


def test_folders_are_numbered(tmp_path: Path) -> None:
    names = [JobFolder.make(tmp_path / "jobs").path.name for _ in range(11)]
    assert names == [f"{number:03d}" for number in range(1, 12)]
    assert [made.path.name for made in JobFolder.all_in(tmp_path / "jobs")] == names
