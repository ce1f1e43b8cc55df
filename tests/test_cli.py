import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gliofed import __version__
from gliofed.cli.main import app


def test_help_names_the_verbs_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from gliofed.cli.main import app;"
        "out = CliRunner().invoke(app, ['--help']).output;"
        "assert 'demo' in out and 'run' in out and 'phantom' in out, out;"
        "print(sorted({'torch', 'numpy', 'monai', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == __version__


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such study file"), ('name="x"\n[data]\nroot="r"\ntrain=["a"]\nexternal=["b"]\n', "no such folder"),
     ("nam=1", "'name'")],
)  # fmt: skip
def test_a_known_error_is_one_line_and_exit_code_1(tmp_path, text, message) -> None:
    path = tmp_path / "study.toml"
    if text is not None:
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "gliofed.cli.main", "run", str(path), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
