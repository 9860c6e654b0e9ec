"""The shape of the project: floors, tables, names in the README."""

import ast
import re
from pathlib import Path

import pytest

import tables

ROOT = Path(__file__).parents[1]
FLOORS = {
    "tables": 0,
    "ranks": 0,
    "files": 0,
    "inputs": 0,
    "models": 1,
    "data_loader": 1,
    "batches": 1,
    "pictures": 1,
    "pairs": 1,
    "labelled": 1,
    "distill": 2,
    "physics": 1,
    "algo_functions": 2,
    "training": 3,
    "analysis": 3,
}
TABLES = [
    "NETWORKS", "MODELS", "PHYSICS", "ORDERINGS", "DATASETS", "LABELLED", "LOSSES", "CLASS_LOSSES", "TASK_LOSSES", "OPTIMIZERS", "STORIES",
    "FEATURE_MEASURES", "CLUSTERS",
]  # fmt: skip
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem not in FLOORS)
SOURCES = [
    path
    for path in ROOT.rglob("*.py")
    if not {".venv", "tests"} & set(path.relative_to(ROOT).parts)
]


def floor(module: str) -> int | None:
    top = module.split(".")[0]
    return 4 if top in SCRIPTS else FLOORS.get(top)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = floor(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for name in names:
            assert floor(name) is None or floor(name) <= here, (
                f"{path.name} imports {name} from a higher floor"
            )


def test_the_loop_knows_no_distillation():
    text = (ROOT / "training" / "loop.py").read_text()
    assert "import distill" not in text and "from distill" not in text


@pytest.mark.parametrize("table", TABLES)
def test_every_table_line_leads_to_something_callable(table):
    entries = getattr(tables, table)
    for name in entries:
        assert callable(tables.look_up(entries, name, "entry"))
    with pytest.raises(
        tables.UserError, match=f"unknown entry 'nonsense': choose from {next(iter(entries))}"
    ):
        tables.look_up(entries, "nonsense", "entry")


def test_no_loss_weighs_nothing_by_default():
    assert all(loss.weight > 0 for loss in tables.LOSSES.values())


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_hold_parse_and_main_and_nothing_that_runs_on_import(script):
    tree = ast.parse((ROOT / f"{script}.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"parse", "main"} <= functions
    for node in tree.body:
        assert isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom | ast.If | ast.Expr)
        assert not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant)


def test_readme_names_every_script_flag_and_choice():
    readme = (ROOT / "README.md").read_text()
    flags = {
        flag
        for path in SOURCES
        for flag in re.findall(r"(?:add_argument|add)\(\s*\"(--\w+)", path.read_text())
    }
    choices = [
        *tables.ORDERINGS,
        *tables.DATASETS,
        *tables.LOSSES,
        *tables.SELECTIONS,
        *tables.TASK_LOSSES,
        *tables.MODELS,
        *tables.PHYSICS,
    ]
    choices += [
        *tables.LABELLED,
        *tables.CLASS_LOSSES,
        *tables.CLASS_SELECTIONS,
        *tables.BALANCES,
        *tables.RESIZES,
        *tables.STORIES,
    ]
    choices += [*tables.CLUSTERS, *tables.FEATURE_MEASURES, *tables.TRAINING]
    missing = [
        word
        for word in [*flags, *choices, *(f"{script}.py" for script in SCRIPTS)]
        if word not in readme
    ]
    assert not missing, f"README.md does not name {missing}"
