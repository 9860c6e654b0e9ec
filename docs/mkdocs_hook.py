"""Fits the pages into a site, whose front page is README.md, without a copy of any text."""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

FRONT = "index.md"


def on_files(files: Files, config, **_) -> Files:
    """Adds the README beside the pages of docs/."""
    readme = Path(config.config_file_path).with_name("README.md")
    files.append(File.generated(config, FRONT, content=readme.read_text()))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """The text of a page with links and tables as the site needs them."""
    if page.file.src_uri == FRONT:
        beside = r"\[([^\]]*)\]\((?!docs/|#|\w+:)[^)]*\)"  # a link to a file that is no page
        markdown = re.sub(beside, r"\1", markdown)
        markdown = markdown.replace("](docs/", "](")
    markdown = markdown.replace("](../README.md", f"]({FRONT}")
    return "\n".join(map(with_plain_pipes, markdown.split("\n")))


def with_plain_pipes(line: str) -> str:
    """A row of a table without escaped pipes in code.

    A code host wants them escaped; Python-Markdown would show the backslash.
    """
    if not line.startswith("|"):
        return line
    return re.sub(r"`[^`]*`", lambda code: code[0].replace(r"\|", "|"), line)
