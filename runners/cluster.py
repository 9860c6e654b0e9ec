"""Numbered jobs for a cluster; they save before their time limit and are queued again."""

import re
import shlex
import signal
import subprocess
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from core.ending import STOPPED
from core.errors import UserError, in_a_line
from core.files import write_text
from core.registry import CLUSTERS, look_up

# the exit code of a program that the signal ended before it had a handler
NOT_HANDLED = 128 + signal.SIGUSR1

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
# The scheduler sends it to every process of the job: a second one would end the work unsaved.
trap : TERM
{clock}
while kill -0 "$work" 2> /dev/null; do wait "$work"; done  # a signal ends a wait early
wait "$work"
code=$?
# What ended well, failed, or was cancelled (TERM) is not queued again.
if [ -n "$again" ] && {{ [ "$code" -eq {stopped} ] || [ "$code" -eq {not_handled} ]; }}; then
    {requeue}
fi
exit "$code"
"""


@dataclass(frozen=True)
class Resources:
    """The resources of every job, by the names of the flags."""

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

    def directives(self, name: str, resources: Resources) -> list[str]:
        directives = [
            f"--job-name={name}",
            f"--time={resources.time}",
            f"--nodes=1 --ntasks=1 --cpus-per-task={resources.cpus}",
            resources.gpus and f"--gres=gpu:{resources.gpus}",
            resources.memory and f"--mem={resources.memory}",
            resources.partition and f"--partition={resources.partition}",
            f"--requeue --signal=B:USR1@{resources.signal_before}",
            "--output=logs/%a.log --open-mode=append",
        ]
        return [f"#SBATCH {directive}" for directive in directives if directive]

    def clock(self, resources: Resources) -> str:
        return "# SLURM itself sends USR1 before the time limit."

    def requeue(self, path: Path) -> str:
        return 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'

    def words(self, numbers: list[int], at_once: int | None, after: str | None) -> list[str]:
        """Words for the program that queues jobs, which begin after all jobs of `after` have ended.

        It does not matter how these ended: one failure must not block jobs that do not need it.
        """
        limit = f"%{at_once}" if at_once else ""
        return [
            "--parsable",
            f"--array={format_ranges(numbers)}{limit}",
            *([f"--dependency=afterany:{after.split(';')[0]}"] if after else []),
        ]


class PBS:
    """PBS Professional or OpenPBS.

    It has no arrays with gaps or of one job: an array counts from 0, and TASKS lists the jobs.
    """

    program = "qsub"
    number = 'IFS=: read -r -a tasks <<< "$TASKS"\ntask=${tasks[${PBS_ARRAY_INDEX:-0}]}'

    def directives(self, name: str, resources: Resources) -> list[str]:
        gpus = f":ngpus={resources.gpus}" if resources.gpus else ""
        memory = f":mem={resources.memory.lower()}b" if resources.memory else ""
        directives = [
            f"-N {name}",
            f"-l walltime={resources.time}",
            f"-l select=1:ncpus={resources.cpus}{gpus}{memory}",
            resources.partition and f"-q {resources.partition}",
            "-r y",
            "-S /bin/bash",
            "-j oe",
            "-o logs/",
        ]
        return [f"#PBS {directive}" for directive in directives if directive]

    def clock(self, resources: Resources) -> str:
        wait = resources.seconds - resources.signal_before
        return "\n".join(
            [
                "# PBS sends nothing before the time limit, and KILL follows TERM within seconds:",
                "# the script has its own clock.",
                f"""( trap 'kill "$!"' TERM; sleep {wait} & wait "$!" && kill -USR1 "$$" ) &""",
                """trap "kill $! 2> /dev/null" EXIT""",
            ]
        )

    def requeue(self, path: Path) -> str:
        folder, file = shlex.quote(str(path.parent)), shlex.quote(path.name)
        again = f'( cd {folder} && qsub -v TASKS="$task" {file} )'
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


def resources_of(args: Namespace) -> Resources:
    return Resources(**{field.name: getattr(args, field.name) for field in fields(Resources)})


def format_ranges(numbers: Iterable[int]) -> str:
    """0-3,7 for 0, 1, 2, 3, 7."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ",".join("-".join(map(str, ends)) for ends in spans)


def check_resources(resources: Resources) -> None:
    if not re.fullmatch(r"[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]", resources.time):
        raise UserError(f"time {resources.time}: a time limit is HH:MM:SS")
    if resources.seconds <= resources.signal_before:
        raise UserError(
            f"time {resources.time}: it must be longer than the {resources.signal_before} seconds "
            "before the time limit in which a job saves"
        )
    if resources.memory and not re.fullmatch(r"[1-9][0-9]*[KMGT]", resources.memory):
        raise UserError(f"memory {resources.memory}: a whole number and K, M, G or T, such as 16G")
    if resources.partition and not re.fullmatch(r"[A-Za-z0-9_.,@-]+", resources.partition):
        raise UserError(f"partition {resources.partition}: letters, digits and _ . , @ - only")


def script_path(kind: str, folder: Path) -> Path:
    return folder.resolve() / f"job.{kind}"


def build_script(
    kind: str, name: str, command: Sequence[str], resources: Resources, folder: Path
) -> str:
    """The script of all jobs.

    It runs `command --task NUMBER` here, and writes to `folder/logs/NUMBER.log`.
    """
    check_resources(resources)
    cluster = look_up(CLUSTERS, kind, "cluster")()
    path = script_path(kind, folder)
    job_name = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "study"
    return TEMPLATE.format(
        directives="\n".join(cluster.directives(job_name, resources)),
        here=shlex.quote(str(Path.cwd())),
        environment="\n".join(resources.environment) or "# no --environment",
        number=cluster.number,
        command=shlex.join(command),
        logs=shlex.quote(str(path.parent / "logs")),
        clock=cluster.clock(resources),
        stopped=STOPPED,
        not_handled=NOT_HANDLED,
        requeue=cluster.requeue(path),
    )


def submit(
    kind: str, text: str, folder: Path, groups: Iterable[Iterable[int]], at_once: int | None = None
) -> list[str]:
    """Queues groups of jobs, each after the one before it; returns the scheduler's ids.

    Empty groups are not queued.
    """
    cluster = look_up(CLUSTERS, kind, "cluster")()
    path = script_path(kind, folder)
    write_text(path, text)
    (path.parent / "logs").mkdir(exist_ok=True)
    ids: list[str] = []
    for numbers in filter(None, (sorted(set(group)) for group in groups)):
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
                f"cluster {kind}: the program {cluster.program} is not installed here{queued}"
            ) from None
        if answer.returncode:
            reason = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
            raise UserError(in_a_line(f"{cluster.program} refused: {reason}{queued}"))
        ids.append(answer.stdout.strip())
    return ids
