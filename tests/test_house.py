"""The shape of the project: imports, tables, scripts."""

import ast
from pathlib import Path

import pytest

from core import registry
from core.errors import UserError

ROOT = Path(__file__).parents[1]
LEVELS = {  # nothing imports upward, and two packages of one level do not import each other
    "core": 0,
    "parsing": 1,
    "runners": 1,
    "models": 1,
    "data": 1,
    "cli": 2,
    "recordings": 2,
    "physics": 2,
    "data_loader": 2,
    "distill": 3,
    "algo_functions": 3,
    "report": 4,
    "checkpoints": 4,
    "training": 5,
    "preparation": 6,
    "evaluation": 7,
    "bookkeeping": 8,
    "demos": 8,
    "features": 8,
    "laboratory": 8,
    "page": 8,
    "speed": 8,
    "study": 9,
    "findings": 10,
    "distillpool": 12,  # above the scripts, whose functions it calls
    "examples": 13,
    "docs": 12,  # above the scripts, whose parsers the reference is made of
}
SCRIPT = 11
TABLES = [
    "NETWORKS", "MODELS", "PHYSICS", "ORDERINGS", "DATASETS", "LABELLED", "LOSSES", "CLASS_LOSSES", "TASK_LOSSES", "OPTIMIZERS", "DEMOS",
    "FEATURE_MEASURES", "CLUSTERS",
]  # fmt: skip
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem not in LEVELS)
SOURCES = [
    path
    for path in ROOT.rglob("*.py")
    if not {".venv", "tests"} & set(path.relative_to(ROOT).parts)
]


def level(module: str) -> int | None:
    """Of a module of ours; the libraries have none."""
    top = module.split(".")[0]
    return SCRIPT if top in SCRIPTS else LEVELS.get(top)


def imported(path: Path) -> list[str]:
    """The modules that a file imports, wherever it does."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        both_are_scripts = level(name) == level(package) == SCRIPT  # a script may call another
        if name.split(".")[0] != package and level(name) is not None and not both_are_scripts:
            assert level(name) < level(package), f"{package} imports {name}"


def test_the_loop_knows_no_distillation():
    lines = (ROOT / "training" / "loop.py").read_text().splitlines()
    of_distill = [line for line in lines if "distill" in line and "import" in line]
    contract = "from distill.task import Losses, Progress, Task, total_of"
    assert of_distill == [contract], "the loop knows a task, whatever it is"


@pytest.mark.parametrize("table", TABLES)
def test_every_table_line_leads_to_something_callable(table):
    entries = getattr(registry, table)
    for name in entries:
        assert callable(registry.look_up(entries, name, "entry"))
    with pytest.raises(
        UserError, match=f"unknown entry 'nonsense': choose from {next(iter(entries))}"
    ):
        registry.look_up(entries, "nonsense", "entry")


def test_no_loss_weighs_nothing_by_default():
    assert all(loss.weight > 0 for loss in registry.LOSSES.values())


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_hold_parse_and_main_and_nothing_that_runs_on_import(script):
    tree = ast.parse((ROOT / f"{script}.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"parse", "main"} <= functions
    for node in tree.body:
        assert isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom | ast.If | ast.Expr)
        assert not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant)
