"""`wit doctor` tells the truth about this machine."""

import importlib.util
import json
from pathlib import Path

import pytest

from wit import doctor


def test_the_survey_agrees_with_the_interpreter() -> None:
    found = doctor.survey(Path.cwd())
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    for name, (module, extra, _) in doctor.PARTS.items():
        part = found["parts"][name]
        present = importlib.util.find_spec(module) is not None
        assert (part["version"] is not None) == present
        assert part["install"] == (None if present else f"pip install -e '.[{extra}]'")


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["duckdb"]["for"]


def test_a_missing_part_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.PARTS, "absent", ("absent_module", "ray", "a test"))
    monkeypatch.setenv("COLUMNS", "120")
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "missing" in out
    assert "pip install -e '.[ray]'" in out
