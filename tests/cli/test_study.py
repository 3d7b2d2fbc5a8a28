"""`inception study`, `draw` and `compare` as commands."""

import json

import pytest

from inception.cli.main import run
from inception.errors import DataError
from inception.study import catalog, counts
from inception.study.experiment import Options


@pytest.fixture
def few(monkeypatch):
    """Only one experiment, so that `all` is quick."""
    monkeypatch.setattr("inception.cli.study.EXPERIMENTS", (counts.EXPERIMENT,))


def test_lists_the_experiments(capsys):
    assert run(["study"]) == 0
    out = capsys.readouterr().out
    assert all(experiment.id in out for experiment in catalog.EXPERIMENTS)
    assert run(["study", "--json"]) == 0
    assert [item["id"] for item in json.loads(capsys.readouterr().out)] == [e.id for e in catalog.EXPERIMENTS]


def test_runs_one_and_leaves_json_and_picture(tmp_path, capsys):
    assert run(["study", "counts", "--quick", "-o", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"]["findings"][0]["verdict"] == "corrected"
    assert result == json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert (tmp_path / "counts.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert 'xmlns="http' in (tmp_path / "counts.svg").read_text(encoding="utf-8")


def test_all_runs_only_what_is_missing(tmp_path, capsys, few):
    command = ["study", "all", "--quick", "-o", str(tmp_path)]
    assert run(command) == 0
    first = (tmp_path / "counts.json").read_bytes()
    assert run(command) == 0
    assert (tmp_path / "counts.json").read_bytes() == first
    assert "GoogLeNet has 5 million parameters" in (tmp_path / "index.html").read_text(encoding="utf-8")
    # A quick result is no answer to a real question.
    assert run(["study", "all", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "counts.json").read_bytes() != first


def test_one_that_fails_does_not_keep_the_others_back(tmp_path, capsys, monkeypatch):
    def fail(options: Options, say):
        raise DataError("no data here")

    broken = type(counts.EXPERIMENT)(**{**vars(counts.EXPERIMENT), "id": "broken", "run": fail})
    monkeypatch.setattr("inception.cli.study.EXPERIMENTS", (broken, counts.EXPERIMENT))
    assert run(["study", "all", "--quick", "-o", str(tmp_path)]) == 1
    assert "broken: no data here" in capsys.readouterr().err
    assert (tmp_path / "counts.json").is_file() and (tmp_path / "index.html").is_file()


def test_unknown_experiment(capsys):
    assert run(["study", "nonsense"]) == 2
    assert "no experiment is called 'nonsense'" in capsys.readouterr().err


def test_draws(tmp_path, capsys):
    file = tmp_path / "sub" / "module.svg"
    assert run(["draw", "googlenet", "--block", "inception3a", "--module", "naive", "-o", str(file)]) == 0
    assert "416 channels" in file.read_text(encoding="utf-8")
    assert run(["draw", "lenet5", "nin", "--heads", "--language", "zh", "-o", str(file)]) == 0
    assert "全连接" in file.read_text(encoding="utf-8")
    assert run(["draw", "lenet5", "--style", "full", "-o", str(file)]) == 0


def test_draw_says_what_does_not_go_together(tmp_path, capsys):
    file = str(tmp_path / "a.svg")
    assert run(["draw", "lenet5", "nin", "-o", file]) == 2
    assert run(["draw", "lenet5", "--heads", "--block", "conv1", "-o", file]) == 2
    assert run(["draw", "googlenet", "--block", "inception9z", "-o", file]) == 2
    assert "no stage is called" in capsys.readouterr().err
    assert run(["draw", "lenet5", "-o", str(tmp_path)]) == 2


def test_compares(capsys):
    assert run(["compare", "lenet5", "googlenet", "--rounds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["parameters"] for row in rows] == [62_006, 6_998_552]
    assert run(["compare", "lenet5", "--rounds", "1"]) == 0
    assert "62,006" in capsys.readouterr().out
    assert run(["compare", "lenet6"]) == 2
