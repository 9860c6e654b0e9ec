"""The page of a report: whole, harmless, sortable, as narrow as a phone; and tables for a paper."""

import base64
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from browser import checked
from markupsafe import Markup
from PIL import Image

from report.page import (
    CSS,
    SCRIPT,
    Section,
    reduce_colors,
    render_commands,
    render_facts,
    render_figure,
    render_page,
    render_paragraph,
    render_table,
)
from report.tables import is_numeric, latex, number_of

pytestmark = pytest.mark.pictures
VILE = "<script>alert(\"x\")</script> & 'quotes' </style></table>"
VOID = {"meta", "link", "img", "wbr"}
ROWS = [
    {
        "student": "resnet20",
        "PSNR": 30.5,
        "parameters": 9585,
        "paired": "+0.02 ± 0.05",
        "camera": None,
    },
    {
        "student": "resnet8",
        "PSNR": 4.25,
        "parameters": 291097,
        "paired": "-0.12 ± 0.01",
        "camera": "spc",
    },
    {"student": VILE, "PSNR": None, "parameters": 10, "paired": "", "camera": "denoise"},
    {
        "student": "teacher",
        "PSNR": -0.5,
        "parameters": 1000,
        "paired": "+0.10 ± 0.07",
        "camera": "",
    },
]


class Tree(HTMLParser):
    """A document as its tags with their attributes, and the text within each element; every element must be closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} says something twice"
        if tag not in VOID:
            self.open.append((tag, []))

    def handle_endtag(self, tag):
        opened, text = self.open.pop()
        assert opened == tag
        self.texts.append((tag, "".join(text)))

    def handle_data(self, data):
        for _, text in self.open:
            text.append(data)

    def all(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [attributes.get(name) for found, attributes in self.tags if found == tag]


@pytest.fixture
def curves():
    drawn, axis = plt.subplots(figsize=(6, 3))
    axis.plot([3, 1, 2])
    return drawn


@pytest.fixture
def text(curves) -> str:
    long = {f"a column with a long name {k}": k / 7 for k in range(12)}
    return render_page(
        VILE,
        [
            render_paragraph(VILE),
            Section(
                "Result",
                render_table([row | long for row in ROWS], VILE, marked={1}),
                render_figure(curves, VILE, VILE),
            ),
            Section("Result", render_facts({VILE: "/a/folder/" + "x" * 200, "n" * 100: VILE})),
            Section(
                VILE,
                render_commands(
                    [f"python sweep.py --name {VILE}", "x" * 300, "python sweep.py --results a/b"]
                ),
            ),
        ],
    )


def test_a_page_is_whole_and_every_anchor_leads_somewhere(text):
    tree = Tree(text)
    assert text.startswith("<!DOCTYPE html>") and tree.attributes("html", "lang") == ["en"]
    assert "width=device-width, initial-scale=1" in tree.attributes("meta", "content")
    baselines = [name for _, attributes in tree.tags if (name := attributes.get("id"))]
    assert tree.attributes("section", "id") == baselines and len(set(baselines)) == 3
    assert tree.attributes("a", "href") == [f"#{name}" for name in baselines]
    assert tree.all("a") == tree.all("h2") == ["Result", "Result", VILE]
    assert len(CSS) + len(SCRIPT) < 8000


def test_a_page_of_one_section_needs_no_contents():
    assert not Tree(render_page("one", [Section("Result", render_paragraph("none"))])).all("nav")


def test_headings_that_look_like_the_anchors_of_others_do_not_meet_them():
    headings = ["a", "a 2", "a", "a", "?", "!"]
    names = Tree(render_page("", [Section(heading) for heading in headings])).attributes(
        "section", "id"
    )
    assert len(set(names)) == len(headings)


def test_a_page_loads_nothing(text):
    for tag, attributes in Tree(text).tags:
        for name in {
            "src",
            "href",
            "srcset",
            "action",
            "poster",
            "data",
            "style",
        } & attributes.keys():
            assert attributes[name].startswith(("data:", "#")), f"{tag} loads {attributes[name]}"
    assert not re.search(r"(?<!:)//\w|https?:|url\(|@import", re.sub(r"base64,[\w+/=]*", "", text))
    policy = next(
        found for found in Tree(text).attributes("meta", "content") if "default-src" in str(found)
    )
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_what_a_user_typed_is_text_everywhere(text):
    tree = Tree(text)
    assert tree.all("script") == [SCRIPT] and tree.all("style") == [CSS]
    for tag in ("title", "h1", "p", "dt", "dd", "figcaption", "th"):
        assert VILE in tree.all(tag), tag
    assert tree.all("code")[0] == f"python sweep.py --name {VILE}\n"
    assert tree.attributes("img", "alt") == [VILE]


def test_bold_marks_stand_outside_of_words():
    assert (
        render_paragraph("a **b c** d, **e**.")
        == "<p>a <strong>b c</strong> d, <strong>e</strong>.</p>"
    )
    for plain in ("2**3 and 4**5", "a ** b ** c", "****", "**a", "run**2** x"):
        assert render_paragraph(plain) == f"<p>{plain}</p>"


def test_cells_are_formatted_as_everywhere_and_sorted_by_their_numbers():
    found = Tree(render_table(ROWS, marked=[2]))
    keys = [
        attributes.get("data-value")
        for tag, attributes in found.tags
        if tag == "td" and attributes.get("class") == "number"
    ]
    assert [None if key is None else float(key) for key in keys] == [
        30.5,
        9585,
        0.02,
        4.25,
        291097,
        -0.12,
        None,
        10,
        None,
        -0.5,
        1000,
        0.1,
    ]
    assert found.all("td")[:8] == [
        "30.50",
        "9,585",
        "+0.02 ± 0.05",
        "",
        "4.25",
        "291,097",
        "−0.12 ± 0.01",
        "spc",
    ]
    assert found.attributes("tr", "class") == [None, None, None, "marked", None]
    assert found.all("button") == list(ROWS[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[
            (0.25, 0.25),
            (3, 3),
            (-math.inf, -math.inf),
            (math.nan, None),
            (None, None),
            ("", None),
            ("spc", None),
            ("1,234.5 ± 2", 1234.5),
        ],
        *[
            ("-0.02 ± 0.05", -0.02),
            ("−3", -3),
            ("95.8 %", 95.8),
            ("< 0.001", 0.001),
            ("(-0.9 ± 1.4)", -0.9),
            ("1e-05", 1e-5),
            ("5.9x", 5.9),
        ],
        *[
            ("nan ± nan", None),
            ("-", None),
            ("2024-05-17", None),
            ("12:30", None),
            ("3k", None),
            ("5875e31", None),
            ("1.2.3", None),
            ("3 of 4", 3),
        ],
    ],
)
def test_a_cell_counts_as_the_number_it_begins_with(value, expected):
    assert number_of(value) == expected


def test_a_column_is_numeric_when_nothing_but_gaps_stands_beside_its_numbers():
    def column(*values):
        return is_numeric([{"a": value} for value in values], "a")

    assert column(1, None, "+2 ± 1", math.nan, "n/a", "-", "")
    assert (
        not column("", None) and not column(1, "failed") and not column("resnet8") and not column()
    )


def test_a_figure_is_closed_and_small_and_twice_as_fine_as_it_is_large(curves):
    made = Tree(render_figure(curves, "", "three points"))
    assert not plt.fignum_exists(curves.number)
    (width,), (height,), (source,) = (
        made.attributes("img", name) for name in ("width", "height", "src")
    )
    image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert (
        image.size == pytest.approx((2 * int(width), 2 * int(height)), abs=1)
        and len(source) < 40_000
    )
    assert int(width) == pytest.approx(
        6 * 96 * 0.84, rel=0.05
    )  # what a tight box leaves of six inches


def test_a_narrow_window_scrolls_a_picture_instead_of_shrinking_its_letters(curves):
    assert '<div class="wide"><img' in render_figure(curves, "", "three points")
    screen = re.sub(r"@media print \{.*", "", CSS, flags=re.DOTALL)
    assert ".wide { overflow-x: auto; }" in screen
    for rule in re.findall(r"\bimg \{([^}]*)\}", screen):
        assert "max-width" not in rule


def test_pictures_in_colour_keep_their_colours():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert reduce_colors(noise) is noise
    grey = noise.convert("L").convert("RGB")
    assert reduce_colors(grey).mode == "P" and np.array_equal(
        np.asarray(reduce_colors(grey).convert("RGB")), np.asarray(grey)
    )


# One character a row: what LaTeX would take for something else.
TEX = {
    "100 %": r"100 \%",
    "a_b & c#d": r"a\_b \& c\#d",
    "{x}\\$": r"\{x\}\textbackslash{}\$",
    "~^": r"\textasciitilde{}\textasciicircum{}",
    "<|>": r"$<$$|$$>$",
    "30.79 ± 0.05": r"30.79 $\pm$ 0.05",
    "-0.02 (-0.9)": "$-$0.02 ($-$0.9)",
    "back-projection --cr": "back-projection -{}-cr",
    "[a]*": "{[}a{]}{*}",
    "σ = 25 → Δ ≥ 1": r"$\sigma$ = 25 $\to$ $\Delta$ $\ge$ 1",
    "two\nlines": "two lines",
}


def test_latex_rows_are_escaped_and_numbers_stand_to_the_right():
    text = latex(
        [
            {"name": name, "PSNR": value, "n_s": k}
            for k, (name, value) in enumerate(zip(TEX, [30.5, "-0.12 ± 0.01"] * 6, strict=False))
        ]
    )
    begin, top, head, middle, *body, bottom, end = text.splitlines()
    assert begin == r"\begin{tabular}{@{}lrr@{}}" and end == r"\end{tabular}"
    assert (top, middle, bottom) == (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ) and head == r"name & PSNR & n\_s \\"
    assert body == [
        rf"{name} & {value} & {k} \\"
        for k, (name, value) in enumerate(
            zip(TEX.values(), ["30.50", r"$-$0.12 $\pm$ 0.01"] * 6, strict=False)
        )
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    gather_objects = (
        "".join(map(chr, range(32, 127))) + "±−×·≤≥≈→∞↑↓√αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΥΦΨΩäé²"
    )
    rows = [{"name": name, "": 1.5} for name in (*TEX, gather_objects, "*", "[1ex]")]
    source = "\n".join(
        [
            r"\documentclass{article}\usepackage{booktabs}\begin{document}",
            latex(rows),
            latex(ROWS),
            r"\end{document}",
        ]
    )
    (tmp_path / "a.tex").write_text(source, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


SORT = """
  const heads = [...document.querySelectorAll("thead th")], seen = {};
  const rows = () => [...document.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent);
  for (const column of [0, 1, 2, 3, 4]) {
    const button = heads[column].querySelector("button");
    seen[button.textContent] = [];
    for (const way of ["ascending", "descending"]) {
      button.click();
      seen[button.textContent].push([heads.map((head) => head.getAttribute("aria-sort")).indexOf(way), rows()]);
    }
  }
  return seen;
"""


def test_headers_sort_both_ways_and_gaps_stay_last_on_a_page_that_fits_a_phone(text):
    seen = checked(text, SORT, width=400)
    assert not seen.console and seen.needed <= 400
    a, b, c, d = (row["student"] for row in ROWS)
    orders = {
        "student": ([c, b, a, d], [d, a, b, c]),
        "PSNR": ([d, b, a, c], [a, b, d, c]),
        "parameters": ([c, d, a, b], [b, a, d, c]),
        "paired": ([b, a, d, c], [d, a, b, c]),
        "camera": ([c, b, d, a], [b, c, d, a]),
    }
    assert seen.result == {
        name: [[column, way] for way in ways] for column, (name, ways) in enumerate(orders.items())
    }


LOOK = """
  const of = (what) => getComputedStyle(document.querySelector(what));
  const scroll = document.querySelector(".scroll"), button = document.querySelector("button");
  button.focus();
  const selection = window.getSelection();
  selection.selectAllChildren(document.querySelector("pre"));
  const [nav] = document.querySelectorAll("nav a:last-child");
  return {
    back: of("body").backgroundColor, ink: of("body").color, scrolls: scroll.scrollWidth > scroll.clientWidth, right: of("td").textAlign,
    reached: document.activeElement === button, commands: selection.toString(), anchor: Boolean(document.querySelector(nav.hash)),
  };
"""


def test_a_page_is_light_or_dark_as_its_reader_likes_and_commands_are_copied_as_they_were_given(
    text,
):
    light, dark = (checked(text, LOOK, width, dark) for width, dark in ((1200, False), (320, True)))
    assert not light.console + dark.console and light.needed <= 1200 and dark.needed <= 320
    assert light.result["back"] == "rgb(255, 255, 255)" and dark.result["back"] == "rgb(21, 24, 28)"
    for name in ("scrolls", "reached", "anchor"):
        assert light.result[name] and dark.result[name], name
    assert light.result["right"] == "right"
    assert dark.result["commands"].strip().splitlines() == [
        f"python sweep.py --name {VILE}",
        "x" * 300,
        "python sweep.py --results a/b",
    ]


def test_the_browser_tells_of_errors_of_what_is_too_wide_and_of_what_may_not_run():
    seen = checked(
        "<!DOCTYPE html><p style='width: 900px'>wide<script>nonsense()</script>",
        "return document.querySelector('p').textContent",
        400,
    )
    assert seen.needed > 800 and "nonsense is not defined" in " ".join(seen.console)
    smuggled = render_page(
        "a", [Markup("<script>document.title = 'b'</script><img src='http://127.0.0.1:9/a.png'>")]
    )
    seen = checked(smuggled, "return document.title")
    assert seen.result == "a" and "Content Security Policy" in " ".join(seen.console)
