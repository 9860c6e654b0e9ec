"""Numbered jobs for the scheduler of a cluster: a script that saves before its time is over and is queued again."""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from core.ending import STOPPED
from core.errors import UserError, in_a_line
from core.files import write_text
from core.registry import CLUSTERS, look_up

UNHEARD = (
    128 + signal.SIGUSR1
)  # the exit code of a program that the signal ended, as it was not listening yet

TEMPLATE = """\
#!/bin/bash
{directives}
cd {here} || exit
{environment}
set -u
{number}
{command} --task "$task" >> {logs}/"$task".log 2>&1 &
work=$!
again=
trap 'again=1; kill -USR1 "$work"' USR1
trap : TERM  # the scheduler sends it to every process of the job: a second one would end the work before it has saved
{clock}
while kill -0 "$work" 2> /dev/null; do wait "$work"; done  # a signal ends a wait early
wait "$work"
code=$?
# What ended well, failed, or was cancelled (TERM) is not queued again.
if [ -n "$again" ] && {{ [ "$code" -eq {stopped} ] || [ "$code" -eq {unheard} ]; }}; then
    {requeue}
fi
exit "$code"
"""


class Asked(NamedTuple):
    """What every job asks of the cluster, by the names of the flags."""

    time: str
    partition: str | None = None
    memory: str | None = None
    gpus: int = 0
    cpus: int = 1
    environment: Sequence[str] = ()
    signal_before: int = 120

    @property
    def seconds(self) -> int:
        hours, minutes, seconds = map(int, self.time.split(":"))
        return 3600 * hours + 60 * minutes + seconds


class Slurm:
    program = "sbatch"
    number = "task=$SLURM_ARRAY_TASK_ID"

    def directives(self, name: str, asked: Asked) -> list[str]:
        asks = [
            f"--job-name={name}",
            f"--time={asked.time}",
            f"--nodes=1 --ntasks=1 --cpus-per-task={asked.cpus}",
            asked.gpus and f"--gres=gpu:{asked.gpus}",
            asked.memory and f"--mem={asked.memory}",
            asked.partition and f"--partition={asked.partition}",
            f"--requeue --signal=B:USR1@{asked.signal_before}",
            "--output=logs/%a.log --open-mode=append",
        ]
        return [f"#SBATCH {ask}" for ask in asks if ask]

    def clock(self, asked: Asked) -> str:
        return "# SLURM itself sends USR1 before the time limit."

    def requeue(self, path: Path) -> str:
        return 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'

    def words(self, numbers: list[int], at_once: int | None, after: str | None) -> list[str]:
        """Those that wait begin when all before them have ended, well or not: one failure must not hold up what does not need it."""
        limit = f"%{at_once}" if at_once else ""
        return [
            "--parsable",
            f"--array={ranges(numbers)}{limit}",
            *([f"--dependency=afterany:{after.split(';')[0]}"] if after else []),
        ]


class PBS:
    """PBS Professional or OpenPBS.

    It has neither arrays with gaps nor arrays of one, so an array counts from 0 and TASKS lists the numbers of the jobs.
    """

    program = "qsub"
    number = 'IFS=: read -r -a tasks <<< "$TASKS"\ntask=${tasks[${PBS_ARRAY_INDEX:-0}]}'

    def directives(self, name: str, asked: Asked) -> list[str]:
        gpus = f":ngpus={asked.gpus}" if asked.gpus else ""
        memory = f":mem={asked.memory.lower()}b" if asked.memory else ""
        asks = [
            f"-N {name}",
            f"-l walltime={asked.time}",
            f"-l select=1:ncpus={asked.cpus}{gpus}{memory}",
            asked.partition and f"-q {asked.partition}",
            "-r y",
            "-S /bin/bash",
            "-j oe",
            "-o logs/",
        ]
        return [f"#PBS {ask}" for ask in asks if ask]

    def clock(self, asked: Asked) -> str:
        return "\n".join(
            [
                "# PBS sends nothing before the time limit, and TERM at it is followed by KILL within seconds: the script has its own clock.",
                f"""( trap 'kill "$!"' TERM; sleep {asked.seconds - asked.signal_before} & wait "$!" && kill -USR1 "$$" ) &""",
                """trap "kill $! 2> /dev/null" EXIT""",
            ]
        )

    def requeue(self, path: Path) -> str:
        again = f'( cd {shlex.quote(str(path.parent))} && qsub -v TASKS="$task" {shlex.quote(path.name)} )'
        return f'qrerun "$PBS_JOBID" || {again}  # most servers let only operators run a job again'

    def words(self, numbers: list[int], at_once: int | None, after: str | None) -> list[str]:
        limit = f"%{at_once}" if at_once else ""
        array = ["-J", f"0-{len(numbers) - 1}{limit}"] if len(numbers) > 1 else []
        return [
            *array,
            "-v",
            f"TASKS={':'.join(map(str, numbers))}",
            *(["-W", f"depend=afterany:{after}"] if after else []),
        ]


def ranges(numbers: Iterable[int]) -> str:
    """0-3,7 for 0, 1, 2, 3, 7."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, ends)) for ends in found)


def check(asked: Asked) -> None:
    if not re.fullmatch(r"[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]", asked.time):
        raise UserError(f"time {asked.time}: a time limit is HH:MM:SS")
    if asked.seconds <= asked.signal_before:
        raise UserError(
            f"time {asked.time} is not longer than the {asked.signal_before} seconds before its end in which a job saves"
        )
    if asked.memory and not re.fullmatch(r"[1-9][0-9]*[KMGT]", asked.memory):
        raise UserError(f"memory {asked.memory}: a whole number and K, M, G or T, such as 16G")
    if asked.partition and not re.fullmatch(r"[A-Za-z0-9_.,@-]+", asked.partition):
        raise UserError(f"partition {asked.partition}: letters, digits and _ . , @ - only")


def script_path(kind: str, folder: Path) -> Path:
    return folder.resolve() / f"job.{kind}"


def script(kind: str, name: str, command: Sequence[str], asked: Asked, folder: Path) -> str:
    """The script of all jobs: runs `command --task NUMBER` here, writes to `folder/logs/NUMBER.log`."""
    check(asked)
    cluster = look_up(CLUSTERS, kind, "cluster")()
    path = script_path(kind, folder)
    return TEMPLATE.format(
        directives="\n".join(
            cluster.directives(re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "study", asked)
        ),
        here=shlex.quote(str(Path.cwd())),
        environment="\n".join(asked.environment) or "# no --environment",
        number=cluster.number,
        command=shlex.join(command),
        logs=shlex.quote(str(path.parent / "logs")),
        clock=cluster.clock(asked),
        stopped=STOPPED,
        unheard=UNHEARD,
        requeue=cluster.requeue(path),
    )


def submit(
    kind: str, text: str, folder: Path, stages: Iterable[Iterable[int]], at_once: int | None = None
) -> list[str]:
    """Queues the numbers of every stage, each stage behind the one before it; the scheduler's ids, of stages that are not empty."""
    cluster = look_up(CLUSTERS, kind, "cluster")()
    path = script_path(kind, folder)
    write_text(path, text)
    (path.parent / "logs").mkdir(exist_ok=True)
    ids: list[str] = []
    for numbers in filter(None, (sorted(set(stage)) for stage in stages)):
        words = [
            cluster.program,
            *cluster.words(numbers, at_once, ids[-1] if ids else None),
            path.name,
        ]
        queued = f"; queued before: {' '.join(ids)}" if ids else ""
        try:
            answer = subprocess.run(
                words,
                cwd=path.parent,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise UserError(
                f"cluster {kind}: there is no program {cluster.program} here{queued}"
            ) from None
        if answer.returncode:
            said = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
            raise UserError(in_a_line(f"{cluster.program} refused: {said}{queued}"))
        ids.append(answer.stdout.strip())
    return ids
