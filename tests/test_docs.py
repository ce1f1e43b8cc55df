"""What the documents state about files, settings, commands, networks and sources is in the code."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import itertools
import json
import re
import sys
import tomllib
import typing
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.main import get_command

import gliofed
from gliofed import errors
from gliofed.calibration.evaluation import (
    IntegratedTypeRow,
    ScalingRow,
    SelectiveRiskRow,
    SetCoverageRow,
    ThresholdRow,
)
from gliofed.calibration.model_agreement import AgreementRow
from gliofed.cli.main import app
from gliofed.data.formats.registry import FORMATS
from gliofed.evaluation.claims import ClaimVerdict
from gliofed.evaluation.comparison import Comparison
from gliofed.evaluation.metrics.definitions import METRIC_DEFINITIONS
from gliofed.evaluation.prediction_table import class_columns, prediction_columns
from gliofed.evaluation.results import ScoreRow
from gliofed.experiments.evaluation import write_score_tables
from gliofed.federated.gate import UpdateGate
from gliofed.federated.message_table import table_rows
from gliofed.markers import MARKERS
from gliofed.models.network import build_net
from gliofed.models.presets import PRESETS
from gliofed.study import NetworkConfig, Study, parse_study
from gliofed.types import SEQUENCES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Headings as the links that Markdown renderers make of them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link} leaves the repository"
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in LINK.findall(prose(page)):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file():
                waiting.append(target)
    assert set(PAGES) - seen == set()


def test_every_complete_study_in_the_documents_is_sound() -> None:
    found = 0
    for page in PAGES:
        for kind, text in FENCE.findall(page.read_text()):
            if kind != "toml":
                continue
            raw = tomllib.loads(text)
            if "data" in raw:
                parse_study(raw, where=page_id(page))
                found += 1
    assert found >= 3


def documented_settings() -> dict[str, dict[str, tuple[str, str, str]]]:
    """Table name ("" for the top level) to key to (type, default, meaning)."""
    text = (ROOT / "docs/reference/study.md").read_text()
    out = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        name = "" if head == "Top level" else head.strip("`[]")
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", body, re.MULTILINE)
        out[name] = {key: (kind, default, meaning) for key, kind, default, meaning in rows}
    return out


def study_tables() -> dict[str, type]:
    hints = typing.get_type_hints(Study)
    kinds = [(n, k) for n, h in hints.items() for k in (h, *typing.get_args(h))]
    return {"": Study, **{n: k for n, k in kinds if dataclasses.is_dataclass(k)}}


def default_text(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        value = field.default
    else:
        return "required"
    if dataclasses.is_dataclass(value):
        return "all defaults"
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "`{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }`"
    return f"`{json.dumps(value)}`"


def test_the_study_reference_has_every_table() -> None:
    assert set(documented_settings()) == set(study_tables())


@pytest.mark.parametrize("table", study_tables())
def test_the_study_reference_has_every_key_with_its_default(table) -> None:
    documented = documented_settings()[table]
    fields = {f.name: f for f in dataclasses.fields(study_tables()[table])}
    assert list(documented) == list(fields)
    for name, field in fields.items():
        assert documented[name][1] == default_text(field), name


def test_the_cli_reference_has_every_command_and_option() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    parts = dict(re.findall(r"^## `gliofed ?(\w*).*?`\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    commands = get_command(app).commands
    assert set(parts) == {"", *commands}
    for name, command in commands.items():
        sections = {name: (command, parts[name])}
        for sub, subcommand in getattr(command, "commands", {}).items():
            pattern = rf"^(### `gliofed {name} {sub}\b.*?)(?=^### |\Z)"
            (section,) = re.findall(pattern, parts[name], re.M | re.S)
            sections[f"{name} {sub}"] = (subcommand, section)
        for full_name, (documented, section) in sections.items():
            for parameter in documented.params:
                option = parameter.opts[0] if parameter.opts[0].startswith("-") else None
                shown = option or parameter.metavar or parameter.name.upper()
                assert re.search(rf"`([^`]* )?{shown}`", section), f"{full_name}: {shown}"


def test_the_cli_reference_has_every_public_function() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    named = set(re.findall(r"`gliofed\.(\w+)`", text)) - {"errors"}
    functions = {n for n in gliofed.__all__ if inspect.isfunction(getattr(gliofed, n))}
    assert named <= set(gliofed.__all__)
    assert functions - named == set()


def test_the_cli_reference_has_every_error() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    classes = {n for n, c in vars(errors).items() if inspect.isclass(c)} - {"GliofedError"}
    assert set(re.findall(r"^\| `(\w+Error)` \|", text, re.M)) == classes


ROWS_OF_EVIDENCE = {
    "verdicts": ClaimVerdict,
    "comparisons": Comparison,
    "confounders": Comparison,
    "calibrations": ScalingRow,
    "prediction-sets": SetCoverageRow,
    "coverage-risk": SelectiveRiskRow,
    "kept-answers": ThresholdRow,
    "integrated-types": IntegratedTypeRow,
    "outline-agreement": AgreementRow,
}


def table_after(text: str, heading: str, columns: str) -> list[list[str]]:
    """The rows of the first table with this header after a heading, cell by cell."""
    body = text[text.index(f"\n{heading}\n") :]
    lines = body[body.index(f"\n| {columns} |\n") :].strip().splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_files_page_has_the_columns_of_scores_and_their_metrics() -> None:
    text = (ROOT / "docs/reference/files.md").read_text()
    rows = table_after(text, "### `scores.csv`", "column | meaning")
    named = [name for cell, *_ in rows for name in codes(cell)]
    assert sorted(named) == sorted(f.name for f in dataclasses.fields(ScoreRow))
    metrics = table_after(text, "### `scores.csv`", "metrics of | ids")
    ids = {name for _, cell in metrics for name in codes(cell)}
    assert ids == {m.id for m in METRIC_DEFINITIONS}


def test_the_files_page_has_the_columns_of_predictions() -> None:
    text = (ROOT / "docs/reference/files.md").read_text()
    rows = table_after(text, "### `predictions.csv`", "column | meaning")
    named = {name for cell, *_ in rows for name in codes(cell)} - {"MARKER_true", "MARKER_p_CLASS"}
    markers = {n for m in MARKERS for n in (f"{m.id}_true", *class_columns(m))}
    assert named | markers == set(prediction_columns())


def test_the_files_page_has_the_columns_of_the_evidence() -> None:
    text = (ROOT / "docs/reference/files.md").read_text()
    rows = table_after(text, "### The folder `evidence`", "table | columns")
    documented = {name: codes(cell) for names, cell in rows for name in codes(names)}
    for name, kind in ROWS_OF_EVIDENCE.items():
        assert documented.pop(name) == [f.name for f in dataclasses.fields(kind)], name
    assert set(documented) == {"confounders-alone", "strata", "models-by-hospital"}
    written = inspect.getsource(write_score_tables)
    tables = [*codes(" ".join(names for names, _ in rows))]
    assert all(f'"{name}"' in written for name in tables)


def test_the_formats_page_has_every_format_with_its_licence_citation_and_caution() -> None:
    text = (ROOT / "docs/reference/formats.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    assert rows == [(f.id, f.title, f.layout, f.licence, f.citation) for f in FORMATS]
    assert all(f"- `{f.id}`: {f.caution}." in text for f in FORMATS if f.caution)


@pytest.fixture
def networks(monkeypatch):
    """The script that prints the network tables."""
    spec = importlib.util.spec_from_file_location("networks", ROOT / "benchmarks/networks.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "networks", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_network_tables_are_those_of_the_code(networks) -> None:
    text = (ROOT / "docs/reference/networks.md").read_text()
    for table in networks.tables().split("\n\n"):
        assert table in text


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_receptive_field_is_what_gradients_reach(networks, preset) -> None:
    net = build_net(NetworkConfig(preset), seed=0)
    expected = networks.receptive_field(networks.path(net))
    for module in net.modules():
        if hasattr(module, "norm"):
            module.norm = nn.Identity()  # its mean would reach everywhere
    if isinstance(net.pool, nn.MaxPool3d):
        net.pool = nn.AvgPool3d((2, 1, 1), ceil_mode=True)  # a gradient to every voxel of a window
    for name, parameter in net.named_parameters():
        positive = torch.rand_like(parameter) / parameter.numel() ** 0.5
        parameter.data = positive if name.endswith("weight") else torch.zeros_like(parameter)
    net.double().eval()
    period, length = 24, 24 * (2 + expected // 24)
    image = torch.rand(1, len(SEQUENCES), length, 1, 1, dtype=torch.double, requires_grad=True)
    mask = net(image, torch.ones(1, len(SEQUENCES), dtype=torch.double)).mask.flatten()
    widths = []
    for place in range((length - period) // 2, (length + period) // 2):
        (gradient,) = torch.autograd.grad(mask[place], image, retain_graph=True)
        reached = gradient.abs().sum((0, 1, 3, 4)).nonzero()
        widths.append(int(reached[-1] - reached[0] + 1))
    assert max(widths) == expected


def test_the_gate_checks_in_the_documented_order() -> None:
    doc = " ".join((ROOT / "docs/reference/messages.md").read_text().split())
    order = [doc.index(f"| {n} | ") for n in range(1, 11)]
    assert order == sorted(order)
    names = ("load_update", "_check_origin", "_check_tensors", "_check_cases", "_check_norm")
    found = [n for n in UpdateGate.check.__code__.co_names if n in names]
    assert found == list(names)


def test_every_field_of_every_message_is_documented_as_it_is_checked() -> None:
    doc = (ROOT / "docs/reference/messages.md").read_text()
    table = doc[doc.index("| message | field | allowed |") :].split("\n\n")[0].splitlines()[2:]
    assert table == [f"| {m} | `{field}` | {text} |" for m, field, text in table_rows()]


def test_every_package_is_described() -> None:
    packages = {p.stem for p in (ROOT / "src/gliofed").iterdir() if p.stem[0] not in "_."}
    text = (ROOT / "docs/architecture.md").read_text()
    table = text[text.index("## Packages") : text.index("## How data flows")]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", table, re.M))))
    assert named == packages - {"py"}


def test_the_tutorial_goes_through_every_part_of_the_page() -> None:
    template = (ROOT / "src/gliofed/reporting/study/page.html.j2").read_text()
    parts = re.findall(r"<h2[^>]*>(.+?)</h2>", template)
    text = (ROOT / "docs/tutorial.md").read_text()
    assert re.findall(r"^\| (.+?) \|", text.split("## 3.")[0], re.M)[1:] == parts


def test_every_dependency_is_used_and_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(d for e in extras if e != "dev" for d in extras[e])]
    names = list(dict.fromkeys(re.match(r"[\w-]+", d)[0] for d in wanted))
    text = (ROOT / "docs/adr/0009-dependencies.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \|", text, re.M)
    assert [r for r in rows if r != "package"] == names
    code = "\n".join(
        p.read_text() for folder in ("src", "tests") for p in (ROOT / folder).rglob("*.py")
    )
    for name in names:
        module = {"simpleitk": "SimpleITK", "pyradiomics-bhklab": "radiomics"}.get(
            name, name.replace("-", "_")
        )
        used = rf"^\s*(import|from) {module}\b|find_spec\(\"{module}\"\)"
        assert re.search(used, code, re.M), f"{name} is never imported"
