"""The scripts as functions, for notebooks: train, distill, evaluate, load, physics.

Flags are arguments, by the names and with the defaults of the command line; a teacher or a
checkpoint is a path, zoo:NAME, or what `train` or `distill` returned.
"""

from distillpool.interface import Result, distill, evaluate, load, physics, train

__all__ = ["Result", "distill", "evaluate", "load", "physics", "train"]
