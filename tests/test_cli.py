import json
import subprocess
import sys

import pytest
from trees import TREES
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.version import __version__


@pytest.mark.process
def test_help_groups_the_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from gliofed.cli.main import app;"
        "out = CliRunner().invoke(app, ['--help']).output;"
        "groups = [line for line in out.splitlines() if line.endswith(':')];"
        "assert groups[1:] == ['Data:', 'Studies:', 'Models and cases:', 'Federation:'], groups;"
        "assert 'demo' in out and 'run' in out and 'phantom' in out and 'inspect' in out, out;"
        "print(sorted({'torch', 'numpy', 'monai', 'matplotlib', 'pydicom', 'pynetdicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.process
@pytest.mark.parametrize(
    "function", ["check", "intake", "prepare", "export_mask", "provision", "score", "view"]
)
def test_functions_for_hospital_it_load_neither_torch_nor_monai(function) -> None:
    code = (
        f"import sys, gliofed; gliofed.{function}; "
        "print(sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.process
@pytest.mark.parametrize("verb", [["intake", "in", "--out", "out"], ["receive", "in"]])
def test_without_the_hospital_extra_the_verb_says_so(tmp_path, verb) -> None:
    code = (
        "import sys; sys.modules['pydicom'] = sys.modules['pynetdicom'] = None\n"
        "import gliofed; from gliofed.cli.main import app; app(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *verb],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "is missing; install gliofed[hospital]" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_prediction_imports_no_statistics() -> None:
    """scipy.stats and scipy.optimize take a third of a second, as long as the network."""
    code = (
        "import sys, gliofed.inference.batch;"
        "print(sorted({'torch', 'scipy.stats', 'scipy.optimize', 'SimpleITK'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch']"


def test_importing_gliofed_loads_nothing_heavy_until_a_name_is_used() -> None:
    code = (
        "import sys, gliofed; before = set(sys.modules); dir(gliofed); gliofed.__version__;"
        "heavy = {'torch', 'numpy', 'typer', 'rich', 'nibabel'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "gliofed.score; print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_every_public_name_is_where_the_table_says_and_documented() -> None:
    assert set(gliofed.__all__) == {*gliofed._MODULES, "__version__"}
    assert set(gliofed.__all__) <= set(dir(gliofed))
    for name, module in gliofed._MODULES.items():
        value = getattr(gliofed, name)
        assert (value.__module__, value.__name__) == (module, name)
        assert value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        gliofed.tarin  # noqa: B018


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == __version__


@pytest.mark.slow
@pytest.mark.process
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


def test_inspect_shows_what_was_kept_and_dropped_and_writes_it(tmp_path) -> None:
    TREES["rhuh_gbm"](tmp_path / "set")
    out = tmp_path / "account.json"
    args = ["inspect", str(tmp_path / "set"), "--format", "rhuh_gbm", "--json", str(out)]
    done = CliRunner().invoke(app, args, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for text in ("found 9, kept 2, dropped 7", "session 1: after surgery", "Before use: the background",
                 "IDH status = (mutant [mut], wild type [wt], NOS)", "CC BY 4.0"):  # fmt: skip
        assert text in done.output
    account = json.loads(out.read_text())
    assert (account["found"], account["kept"], len(account["dropped"])) == (9, 2, 7)


def test_inspect_of_an_unknown_format_names_the_nearest(tmp_path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(tmp_path), "--format", "ucsf"])
    assert done.exit_code == 1
    assert "nearest is 'ucsf_pdgm'" in done.output


def test_a_path_that_cannot_be_written_is_one_line(tmp_path) -> None:
    TREES["rhuh_gbm"](tmp_path / "set")
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "account.json"
    args = ["inspect", str(tmp_path / "set"), "--format", "rhuh_gbm", "--json", str(out)]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert "file" in line
    assert "check the path" in line


@pytest.mark.parametrize(("words", "does", "after"), [
    (["demo", "--out", "o"], "demo", "goes on from the last committed round"),
    (["run", "s.toml", "--out", "o"], "run", "goes on from the last committed round"),
    (["phantom", "o"], "phantom", "complete hospitals stay"),
    (["intake", "in", "--out", "o"], "intake", "complete patients stay"),
    (["export", "m.nii.gz", "--case", "c", "--out", "o"], "export_mask", "with --overwrite writes all"),
    (["check", "x"], "check", "run the same command again"),
    (["inspect", "x"], "inspect", "run the same command again"),
])  # fmt: skip
def test_a_stop_says_what_is_true_of_the_verb(words, does, after, tmp_path, monkeypatch) -> None:
    def stop(*args, **over):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    for name in ("s.toml", "x", "m.nii.gz"):
        (tmp_path / name).touch()
    for name in ("in", "c"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(gliofed, does, stop)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 130, result.output
    assert "stopped; " in result.output
    assert after in result.output


def test_help_shows_what_is_taken_where_nothing_is_given() -> None:
    for verb, default in (("intake", "<out>-private"), ("predict", "OUT/store")):
        said = CliRunner().invoke(app, [verb, "--help"], terminal_width=200).output
        assert f"[default: {default}]" in said
