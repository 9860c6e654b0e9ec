"""Jobs for a cluster: the scripts really run, below programs that only record what they are asked, and on a small real SLURM where there is one."""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.flags import add_cluster
from core.ending import STOPPED
from core.errors import UserError
from core.registry import CLUSTERS
from parsing.parser import Parser
from runners.cluster import Resources, build_script, format_ranges, resources_of, submit

ASKED = Resources("01:00:00")
TEXT = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=12)
WORK = """
import signal, sys, time
from pathlib import Path

does, story, heard = sys.argv[1], Path(sys.argv[2]), []
for number in (signal.SIGUSR1, signal.SIGTERM) if does != "is deaf" else ():
    signal.signal(number, lambda number, _: heard.append(signal.Signals(number).name))

def tell(word):
    with open(story, "a") as file:
        file.write(f"{sys.argv[4]} {word}\\n")

tell("begins")
if does == "fails":
    sys.exit(3)
if does == "ends" or (sys.argv[4] != "0" and does == "stops if first") or "0 SIGUSR1" in story.read_text():
    tell("ends")
    sys.exit()
patience = time.monotonic() + 90
while not heard and time.monotonic() < patience:
    time.sleep(0.05)
time.sleep(0.5)  # a second signal would be heard too
tell(" ".join(heard))
sys.exit(75)
"""


def command(folder, does):
    """A stand-in of Python's training: it tells its story in a file."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "work.py").write_text(WORK)
    return [sys.executable, str(folder / "work.py"), does, str(folder / "story")]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a program that records where and with what it is called."""
    bins = tmp_path / "bin"
    bins.mkdir()
    monkeypatch.setenv("PATH", f"{bins}:{os.environ['PATH']}")

    def make(name, does=""):
        record = tmp_path / f"{name}.record"
        record.touch()
        (bins / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$PWD" "$@" > {record}\n{does}\n')
        (bins / name).chmod(0o755)
        return lambda: record.read_text().splitlines()

    return make


def begin(kind, does, folder, asked=ASKED):
    """The script of job 3 at work, as the scheduler starts it, or below another one."""
    (folder / "logs").mkdir(parents=True)
    path = folder / f"job.{kind}"
    path.write_text(build_script(kind, "a study", command(folder, does), asked, folder))
    given = {
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "3",
        "PBS_JOBID": "12[1].server",
        "PBS_ARRAY_INDEX": "1",
        "TASKS": "0:3:7",
    }
    return subprocess.Popen(
        ["bash", path], env={**os.environ, **given}, cwd="/", start_new_session=True
    )


def story(folder):
    return (folder / "story").read_text().splitlines() if (folder / "story").exists() else []


def until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def left(job):
    """The processes of a job: a clock is one."""
    return answer("ps", "-o", "pid=", "--sid", str(job.pid))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'a study\'s "results" $HOME'


def requeues(fake):
    return {"slurm": fake("scontrol"), "pbs": fake("qrerun")}


REQUEUED = {"slurm": ["requeue", "12_3"], "pbs": ["12[1].server"]}


@pytest.mark.parametrize("kind", CLUSTERS)
@pytest.mark.parametrize(("does", "code"), [("stops", STOPPED), ("is deaf", 128 + signal.SIGUSR1)])
def test_the_signal_reaches_the_work_and_the_job_is_queued_again(kind, does, code, fake, folder):
    asked = requeues(fake)[kind]
    with begin(kind, does, folder, Resources("00:00:04", signal_before=2)) as job:
        until(lambda: story(folder))
        if kind == "slurm":
            job.send_signal(signal.SIGUSR1)  # PBS's script has its own clock
        assert job.wait(20) == code
    assert asked()[1:] == REQUEUED[kind]
    assert story(folder) == ["3 begins", *(["3 SIGUSR1"] if does == "stops" else [])]


@pytest.mark.parametrize("kind", CLUSTERS)
@pytest.mark.parametrize(("does", "code"), [("ends", 0), ("fails", 3)])
def test_an_end_or_a_failure_is_handed_on_and_not_queued_again(kind, does, code, fake, folder):
    asked = requeues(fake)[kind]
    with begin(kind, does, folder) as job:
        assert job.wait(20) == code
    assert not asked()
    assert (folder / "logs" / "3.log").is_file()
    until(lambda: not left(job))


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cancelled_job_saves_after_one_signal_and_is_not_queued_again(kind, fake, folder):
    asked = requeues(fake)[kind]
    with begin(kind, "stops", folder) as job:
        until(lambda: story(folder))
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(20) == STOPPED
    assert not asked()
    assert story(folder) == ["3 begins", "3 SIGTERM"]


def test_where_pbs_lets_only_operators_run_a_job_again_its_number_is_submitted(fake, folder):
    fake("qrerun", "exit 1")
    qsub = fake("qsub")
    with begin("pbs", "stops", folder, Resources("00:00:04", signal_before=2)) as job:
        assert job.wait(20) == STOPPED
    assert qsub() == [str(folder), "-v", "TASKS=3", "job.pbs"]


@pytest.mark.parametrize("kind", CLUSTERS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    name=TEXT,
    words=st.lists(TEXT, min_size=1),
    place=TEXT.filter(lambda text: "/" not in text),
    printed=TEXT,
)
def test_bash_reads_any_script_whole(kind, name, words, place, printed):
    environment = [
        f"export WORD={shlex.quote(printed)}",
        "source '.venv of mine/bin/activate'",
        "# it's a remark",
    ]
    text = build_script(
        kind,
        name,
        words,
        replace(ASKED, environment=environment),
        Path("/nowhere") / (place or "x"),
    )
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    lines = text.split("\n")
    head = lines[1 : lines.index("set -u")]
    mark = {"slurm": "#SBATCH ", "pbs": "#PBS "}[kind]
    assert [line.startswith(mark) for line in head] == sorted(
        (line.startswith(mark) for line in head), reverse=True
    )  # directives come first
    assert all(
        len(line.split()) >= 2 and line.isprintable() for line in head if line.startswith(mark)
    )


def test_what_is_asked_for_stands_in_the_script(folder):
    asked = Resources(
        "36:00:00", "gpu", "16G", 2, 8, ["module load cuda", "source .venv/bin/activate"], 300
    )
    slurm, pbs = (build_script(kind, "a study", ["python"], asked, folder) for kind in CLUSTERS)
    for line in (
        "--time=36:00:00",
        "--partition=gpu",
        "--mem=16G",
        "--gres=gpu:2",
        "--cpus-per-task=8",
        "--signal=B:USR1@300",
        "--job-name=a_study",
    ):
        assert line in slurm
    for line in (
        "-l walltime=36:00:00",
        "-q gpu",
        "select=1:ncpus=8:ngpus=2:mem=16gb",
        f"sleep {36 * 3600 - 300} &",
        "-N a_study",
    ):
        assert line in pbs
    assert all(
        "module load cuda\nsource .venv/bin/activate\nset -u" in text for text in (slurm, pbs)
    )
    assert "gres" not in build_script(
        "slurm", "a", ["b"], ASKED, folder
    ) and "ngpus" not in build_script("pbs", "a", ["b"], ASKED, folder)


@pytest.mark.parametrize(
    ("wrong", "printed"),
    [
        ({"time": "4h"}, "time 4h: a time limit is HH:MM:SS"),
        ({"time": "00:61:00"}, "time 00:61:00: a time"),
        ({"time": "00:02:00"}, "must be longer than the 120 seconds"),
        ({"memory": "16 GB"}, "memory 16 GB: a whole number"),
        ({"partition": "gpu\n#SBATCH --exclusive"}, "partition gpu"),
    ],
)
def test_what_no_cluster_understands_is_a_mistake(wrong, printed, tmp_path):
    with pytest.raises(UserError, match=printed):
        build_script("slurm", "a", ["b"], replace(ASKED, **wrong), tmp_path)


@given(st.lists(st.integers(0, 60)))
def test_ranges_name_every_number_once(numbers):
    pairs = [
        [int(end) for end in part.split("-")] for part in format_ranges(numbers).split(",") if part
    ]
    assert list(chain.from_iterable(range(pair[0], pair[-1] + 1) for pair in pairs)) == sorted(
        set(numbers)
    )


def test_slurm_gets_two_arrays_the_second_behind_the_first(fake, folder):
    folder.mkdir()
    record = folder.parent / "all"
    fake("sbatch", f'echo "$@" >> {record}; echo "7;here"')
    assert submit("slurm", "the script", folder, [[1, 0], [2, 3, 4, 9]], 4) == ["7;here", "7;here"]
    first, second = record.read_text().splitlines()
    assert first == "--parsable --array=0-1%4 job.slurm"
    assert second == "--parsable --array=2-4,9%4 --dependency=afterany:7 job.slurm"
    assert (folder / "job.slurm").read_text() == "the script" and (folder / "logs").is_dir()


def test_pbs_gets_an_array_that_counts_from_0_and_none_for_a_single_job(fake, folder):
    folder.mkdir()
    record = folder.parent / "all"
    fake("qsub", f'echo "$@" >> {record}; echo "7[].server"')
    assert submit("pbs", "the script", folder, [[5], [2, 3, 9]], 2) == ["7[].server"] * 2
    assert record.read_text().splitlines() == [
        "-v TASKS=5 job.pbs",
        "-J 0-2%2 -v TASKS=2:3:9 -W depend=afterany:7[].server job.pbs",
    ]


@pytest.mark.parametrize(("kind", "program"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_nothing_is_queued_where_nothing_is_to_be_done(kind, program, fake, tmp_path):
    asked = fake(program)
    assert submit(kind, "", tmp_path, [[], []]) == [] and not asked()


@pytest.mark.parametrize(("kind", "program"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_refusal_is_reported_in_the_programs_own_words(
    kind, program, fake, tmp_path, monkeypatch
):
    fake(
        program,
        f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; echo 7; exit; }}; echo 'error: no such\n partition' >&2; exit 1",
    )
    with pytest.raises(
        UserError, match=f"^{program} refused: error: no such partition; queued before: 7$"
    ):
        submit(kind, "", tmp_path, [[0], [1]])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=f"^cluster {kind}: the program {program} is not installed here$"
    ):
        submit(kind, "", tmp_path, [[0]])


def parsed(*words):
    parser = Parser("a test")
    add_cluster(parser)
    args = parser.parse_args([*words])
    return args.cluster, resources_of(args) if args.cluster else None


def test_flags_are_what_is_asked():
    line = "--cluster slurm --partition gpu --time 04:00:00 --memory 16G --gpus 1 --cpus 8 --environment one --environment 'two three'"
    assert parsed(*shlex.split(line)) == (
        "slurm",
        Resources("04:00:00", "gpu", "16G", 1, 8, ["one", "two three"], 120),
    )
    assert parsed("--cluster", "pbs", "--time", "01:00:00") == ("pbs", ASKED)
    assert parsed() == (None, None)


@pytest.mark.parametrize(
    "words",
    [["--time", "01:00:00"], ["--cluster", "slurm"], ["--cluster", "lsf", "--time", "01:00:00"]],
)
def test_flags_that_do_not_go_together_are_refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        parsed(*words)
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1


SLURM = ("slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "scancel")
CONFIGURATION = """
ClusterName=tiny
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmdPort={worker}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName=localhost CPUs=4
PartitionName=tiny Nodes=localhost Default=YES
"""


def free_port():
    with closing(socket.socket()) as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def answer(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout


@contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A real cluster of one node, which is this one; sees no other configuration and leaves no process."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if missing := [program for program in SLURM if not shutil.which(program)]:
        pytest.skip(f"SLURM is not installed here: no {', '.join(missing)}")
    home = tmp_path / "slurm"
    for name in ("state", "spool"):
        (home / name).mkdir(parents=True)
    (home / "slurm.conf").write_text(
        CONFIGURATION.format(
            controller=free_port(), worker=free_port(), user=getpass.getuser(), folder=home
        )
    )
    monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
    with (
        open(home / "log", "w") as log,
        ended(subprocess.Popen(["slurmctld", "-D"], stdout=log, stderr=log)),
        ended(subprocess.Popen(["slurmd", "-D", "-N", "localhost"], stdout=log, stderr=log)),
    ):
        end = time.monotonic() + 20
        while "idle" not in answer("sinfo", "-h", "-o", "%T"):
            if time.monotonic() > end:
                pytest.skip(f"SLURM does not start here: {(home / 'log').read_text()[-300:]}")
            time.sleep(0.2)
        yield
        subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
        until(lambda: not answer("squeue", "-h", "-t", "running,completing"))


def test_a_real_slurm_signals_requeues_and_keeps_the_order(slurm, folder):
    text = build_script(
        "slurm",
        "a study",
        command(folder, "stops if first"),
        Resources("00:01:00", signal_before=55),
        folder,
    )
    first, second = submit("slurm", text, folder, [[0, 1], [2]], 2)
    until(lambda: "2 ends" in story(folder), 85)
    reported = story(folder)
    assert [line for line in reported if line[0] == "0"] == [
        "0 begins",
        "0 SIGUSR1",
        "0 begins",
        "0 ends",
    ]
    assert [line for line in reported if line[0] == "1"] == ["1 begins", "1 ends"]
    assert reported[-2:] == ["2 begins", "2 ends"]
    assert first != second and {path.name for path in (folder / "logs").iterdir()} == {
        "0.log",
        "1.log",
        "2.log",
    }


def test_a_real_slurm_does_not_bring_a_cancelled_job_back(slurm, folder):
    text = build_script("slurm", "a study", command(folder, "stops"), Resources("00:10:00"), folder)
    (job,) = submit("slurm", text, folder, [[0]])
    until(lambda: story(folder))
    subprocess.run(["scancel", job], check=True)
    until(lambda: len(story(folder)) > 1)
    until(lambda: not answer("squeue", "-h"))
    assert story(folder) == ["0 begins", "0 SIGTERM"]
