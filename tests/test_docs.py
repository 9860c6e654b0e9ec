"""The README and the pages of docs/: complete, up to date, short, and true as far as a parser can say."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from core import registry
from docs import make_reference
from docs.make_atlas import complete, entry_of, rows_of_table
from findings.atlas import plot_atlas
from report.statistics import UNCLEAR
from tests.test_house import SCRIPTS, SOURCES

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference.md"
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [path for path in WRITTEN if path != REFERENCE]  # by hand
LONGEST_PAGE, WIDEST_PROSE = 200, 120
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
FOREIGN = {  # flags of programs that are not ours
    "--standalone", "--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint",
    "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--nodes", "--requeue", "--signal",
    "--help",
}  # fmt: skip
SUFFIX = re.compile(r"\.(csv|json|png|md|html|pth|npy|txt|yml|tex)$")


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---------------------------------------------------------------- reading a page


@cache
def code_of(path: Path) -> str:
    """What a page shows as code: fenced blocks and spans, one a line."""
    text = path.read_text()
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return "\n".join([body for _, body in FENCE.findall(text)] + spans).replace("\\|", "|")


def prose_of(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text()))


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as a code host makes them."""
    found, counts = set(), {}
    for title in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = counts[slug] = counts.get(slug, -1) + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def commands_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The calls of our scripts in the shell blocks of a page: script and words."""
    for language, body in FENCE.findall(path.read_text()):
        for line in body.replace("\\\n", " ").split("\n") if language == "sh" else ():
            words = shlex.split(line, comments=True)
            places = [k for k, word in enumerate(words) if word.removesuffix(".py") in SCRIPTS]
            for k in places:
                if words[k].endswith(".py") and (k == 0 or words[k - 1] in ("python", "--")):
                    rest = words[k + 1 :]
                    ends = [j for j, word in enumerate(rest) if word in ("&", "&&", "|", ";")]
                    yield words[k].removesuffix(".py"), rest[: ends[0] if ends else None]


@cache
def options_of(script: str) -> frozenset[str]:
    """The flags of a script, with underscores."""
    options = import_module(script).build_parser()._option_string_actions
    return frozenset(option.replace("-", "_") for option in options)


def unknown_flags(script: str, words: list[str]) -> list[str]:
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag for flag in flags if flag.replace("-", "_") not in options_of(script)]


# ---------------------------------------------------------------- the reference


def test_reference_is_up_to_date():
    fresh = make_reference.reference() == REFERENCE.read_text()
    assert fresh, "docs/reference.md is stale: run `make reference`"


def test_reference_has_every_script():
    assert sorted(make_reference.SCRIPTS) == SCRIPTS


def test_reference_has_every_table_of_the_registry():
    tables = {
        name
        for name, value in vars(registry).items()
        if name.isupper() and isinstance(value, dict | tuple | list)
    }
    missing = tables - make_reference.TABLES.keys() - make_reference.PARTS
    assert not missing, f"docs/make_reference.py knows nothing of {sorted(missing)}"


def test_reference_is_the_same_on_every_machine(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("HOME", "/nowhere")
    text = make_reference.reference()
    assert text == make_reference.reference()
    assert str(ROOT) not in text and "/nowhere" not in text and str(Path.cwd()) not in text


def test_reference_escapes_what_markdown_would_swallow():
    assert not re.search(r"(?<!\\)<\w+>", prose_of(REFERENCE))


PLACEHOLDER = r"(?:<[^>]+>|\w+)"


def names_written(path: Path) -> Iterator[str]:
    """The names of files that a module puts behind a folder, as patterns of the reference's names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            right = node.right
            if isinstance(right, ast.Constant) and isinstance(right.value, str):
                yield re.escape(right.value)
            elif isinstance(right, ast.JoinedStr):
                parts = [
                    re.escape(part.value) if isinstance(part, ast.Constant) else PLACEHOLDER
                    for part in right.values
                ]
                yield "".join(parts)


def test_reference_names_every_file_that_is_written():
    listed = "\n".join(re.findall(r"`([^`\n]+)`", REFERENCE.read_text()))
    readers = {"data", "core", "docs", "tests"}
    sources = [path for path in SOURCES if path.relative_to(ROOT).parts[0] not in readers]
    names = {
        name
        for path in sources
        for name in names_written(path)
        if SUFFIX.search(name.replace("\\", ""))
    }
    assert len(names) > 30
    missing = [
        name
        for name in names
        if not re.search(rf"(^|/){name}(?![\w.])", listed, re.MULTILINE) and name not in UNLISTED
    ]
    assert not missing, f"FILES of docs/make_reference.py does not list {sorted(missing)}"


UNLISTED = {  # temporary, or the user's own
    rf"teacher_{PLACEHOLDER}\.pth",  # of the benchmark, in a temporary folder
}


# ---------------------------------------------------------------- the pages by hand


def is_named(word: str, text: str) -> bool:
    """Whether text has a whole word, with or without the dashes of a flag."""
    return re.search(rf"(?<![\w-])(?:--)?{re.escape(word)}(?![\w-])", text) is not None


def test_a_part_of_a_word_is_not_the_word():
    assert is_named("at", "`mse` or\nat") and is_named("--cr", "--cr 0.1")
    assert not is_named("at", "that, at-once, atoll") and not is_named("--cr", "--cr_student")


def test_pages_name_every_script_and_every_flag():
    text = "\n".join(map(code_of, PAGES))
    options = {
        option
        for script in SCRIPTS
        for action in import_module(script).build_parser()._actions
        for option in action.option_strings[:1]
    }
    asked = [*(f"{script}.py" for script in SCRIPTS), *sorted(options - {"-h", "--help"})]
    missing = [word for word in asked if not is_named(word, text)]
    assert not missing, f"README and docs never explain {missing}"


@pytest.mark.parametrize("table", make_reference.TABLES)
def test_pages_name_everything_in_the_registry(table):
    text = "\n".join(map(code_of, PAGES))
    names = [name for name in getattr(registry, table) if name is not None]
    missing = [name for name in names if not is_named(name, text)]
    assert not missing, f"README and docs never explain {missing} of {table}"


@pytest.mark.parametrize("path", PAGES, ids=by_name)
def test_a_page_is_short_and_its_prose_is_wrapped(path):
    lines = path.read_text().split("\n")
    assert len(lines) - 1 <= LONGEST_PAGE, f"{len(lines) - 1} lines, {LONGEST_PAGE} are allowed"
    for line in FENCE.sub("", path.read_text()).split("\n"):
        assert len(line) <= WIDEST_PROSE or line.startswith("|"), line


@pytest.mark.parametrize("path", WRITTEN, ids=by_name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(path))
    for link in links:
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_file(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside of the repository"
        assert not anchor or anchor in anchors_of(target), f"{link}: no such heading"


def test_readme_leads_to_every_page():
    linked = re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text())
    assert set(linked) == {path.name for path in WRITTEN if path.parent == ROOT / "docs"}


def test_site_has_every_page():
    text = (ROOT / "mkdocs.yml").read_text()
    assert all(f" {path.name}\n" in text for path in WRITTEN if path.parent == ROOT / "docs")


# ---------------------------------------------------------------- the commands that are shown

COMMANDS = [(path, *command) for path in PAGES for command in commands_of(path)]


@pytest.mark.parametrize(
    ("path", "script", "words"), COMMANDS, ids=[f"{by_name(c[0])}:{c[1]}" for c in COMMANDS]
)
def test_shown_commands_are_understood(path, script, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)  # where studies/ is
    assert not unknown_flags(script, words)
    study = words[0] if script == "sweep" and words[0].endswith(".yml") else None
    if study and not Path(study).is_file():
        return  # the reader's own study
    try:
        import_module(script).parse(words)
    except SystemExit:
        pytest.fail(f"python {script}.py {shlex.join(words)}\n{capsys.readouterr().err}")


def test_commands_are_found():
    assert {script for _, script, _ in COMMANDS} == set(SCRIPTS)


@pytest.mark.parametrize("path", PAGES, ids=by_name)
def test_flags_shown_within_a_text_exist(path):
    known = frozenset().union(*map(options_of, SCRIPTS))
    for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", path.read_text())):
        found = re.match(r"(?:python )?(\w+)\.py( .+)", span)
        words = re.findall(r"(?<!\S)--[a-z][\w-]*", span.replace("\\|", " | "))
        if found and found[1] in SCRIPTS:
            assert not unknown_flags(found[1], words), span
        elif not span.startswith("python -m tests."):
            unknown = {w for w in words if w.replace("-", "_") not in known} - FOREIGN
            assert not unknown, span


def test_shown_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in PAGES:
        shown = re.findall(r"^make (\w+)", code_of(path), re.MULTILINE)
        assert set(shown) <= set(targets)


ATLAS = rows_of_table((ROOT / "docs" / "atlas.md").read_text())


@pytest.mark.parametrize("row", ATLAS, ids=lambda row: row["who learns, from whom"][:50])
def test_a_row_of_the_atlas_says_what_it_is_worth(row):
    """Its interval agrees with what is bold; where nothing is seen it says what could have been."""
    entry, verdict = entry_of(row)
    clear = entry.gain.low > 0 or entry.gain.high < 0
    assert verdict == UNCLEAR or clear, "what is bold is clear of zero"
    assert bool(row["could have seen"]) == (verdict == UNCLEAR)
    assert int(row["n"]) >= 3 and re.fullmatch(r"\[\d+\]", row["study"])


def test_the_columns_of_the_atlas_follow_from_its_gains():
    """p by scipy's own test of values with that mean and interval, times the tests that are left."""
    text = (ROOT / "docs" / "atlas.md").read_text()
    assert complete(text) == text, "run python -m docs.make_atlas"
    head = "| missing | who learns, from whom | without | gain | p | n | could have seen | study |"
    values = np.array([1.0, 1.4, 0.9, 1.3, 1.1]), np.array([0.2, -0.3, 0.4])
    tests = [stats.ttest_1samp(v, 0) for v in values]
    halves = [np.ptp(test.confidence_interval()) / 2 for test in tests]
    gains = [f"{v.mean():+.6f} ± {h:.6f} points" for v, h in zip(values, halves, strict=True)]
    rows = [f"| a | b | 1 | {gains[k]} | | {len(values[k])} | | [1] |" for k in (0, 1)]
    page = "\n".join(["Holm over 9 gains.", head, "|" + " --- |" * 8, *rows, "", "But +0.3 ± 0.1."])
    first, second = rows_of_table(complete(page))
    p = [test.pvalue for test in tests]
    assert "over 3 gains" in complete(page)
    assert first["gain"] == f"**{gains[0]}**" and first["could have seen"] == ""
    assert float(first["p"]) == pytest.approx(3 * p[0], abs=1e-4)
    assert second["gain"] == gains[1] and float(second["could have seen"]) > 0.5
    assert float(second["p"]) == pytest.approx(min(1, 2 * p[1]), abs=1e-3)


def test_the_atlas_is_short_and_names_every_study():
    text = (ROOT / "docs" / "atlas.md").read_text()
    assert len(ATLAS) <= 20
    for row in ATLAS:
        number = row["study"].strip("[]")
        (line,) = [one for one in text.splitlines() if one.startswith(f"{number}. ")]
        named = re.findall(r"studies/(\w+)\.yml", line)
        assert named and all((ROOT / "studies" / f"{name}.yml").is_file() for name in named)
    entries, verdicts = map(list, zip(*map(entry_of, ATLAS), strict=True))
    drawn = sum(len(axis.get_yticklabels()) for axis in plot_atlas(entries, verdicts).axes)
    assert drawn == len(ATLAS)
