"""Jobs for the processes of a pool: each does what its name says."""

import os

from runners import pool
from runners.pool import ELSEWHERE
from study.status import DONE


def serve(pipe, place) -> None:
    pool.take_place(place)
    pool.serve_jobs(pipe, job)


def serve_blank(pipe, place, args) -> None:
    """What sweep.py's processes do, with figures that are not rendered."""
    import blank

    import sweep

    blank.render(False)
    sweep.serve(pipe, place, args)


class Here:
    """A pool of sweep.py whose jobs are done one by one in this process."""

    def __init__(self, count, serve, given):
        self.given = given

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, jobs, finished) -> None:
        import sweep
        from study.jobs import do_job

        study, plan = sweep.build_plan(*self.given)
        for keys in jobs:
            finished(keys, do_job(study, plan, keys))


def job(keys: list[str], wait: bool) -> dict[str, str]:
    if keys[0] == "dies":
        os._exit(9)
    if keys[0] == "full":
        raise OSError(28, "not written, No space left on device", "log.txt")
    state = ELSEWHERE if keys[0] == "elsewhere" and not wait else DONE
    return dict.fromkeys(keys, state)
