"""A worker of pytest that hangs is ended, and one that ends ends the run; its test is named."""

import subprocess
import sys

import pytest
from test_house import ROOT


@pytest.mark.long
def test_a_worker_that_hangs_ends_the_run_with_its_test_named(tmp_path):
    (tmp_path / "test_faulty.py").write_text(
        "import time\ndef test_never_ends(): time.sleep(1000)\n"
    )
    (tmp_path / "test_whole.py").write_text("def test_of_another_worker(): pass\n")
    settings = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-o", "timeout=2"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert "test_faulty.py::test_never_ends" in run.stdout
    assert "1 failed, 1 passed" in run.stdout
