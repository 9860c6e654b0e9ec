"""Jobs for the processes of a pool: each does what its name says."""

import os

from study import workers


def serve(pipe, place) -> None:
    workers.settle(place)
    workers.serve(pipe, job)


def job(keys: list[str], patient: bool) -> dict[str, str]:
    if keys[0] == "dies":
        os._exit(9)
    if keys[0] == "full":
        raise OSError(28, "not written, No space left on device", "log.txt")
    state = workers.ELSEWHERE if keys[0] == "elsewhere" and not patient else workers.DONE
    return dict.fromkeys(keys, state)
