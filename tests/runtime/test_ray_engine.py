"""Workers of a Ray cluster leave the answers that one process leaves."""

import json
import sys

import pytest
from shapes import COLOURS, shape_picture

from inception.errors import InceptionError, UsageError
from inception.runtime.batch import Job, run_job
from inception.runtime.inputs import expand_inputs
from inception.runtime.ray_engine import RayEngine, processors_each


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [([2], 1, 2), ([2], 2, 1), ([16] * 4, 4, 16), ([16] * 4, 3, 16), ([16] * 4, 6, 8), ([3, 8], 3, 3)],
)
def test_processors_of_each_worker(nodes, workers, share):
    assert processors_each(nodes, workers) == share
    assert sum(processors // share for processors in nodes) >= workers


def test_more_workers_than_processors_are_refused():
    with pytest.raises(UsageError, match="has 6 processors"):
        processors_each([2, 4], 7)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"inception\[ray\]"):
        RayEngine(1)


def test_ray_that_cannot_start_is_one_sentence(tiny_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")

    def fail(**options):
        raise RuntimeError("no room\nfor developers")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InceptionError, match=r"cannot be started or reached \(no room\)"):
        list(RayEngine(1)(None, [0]))


def test_a_worker_answers_as_one_process_does(tiny_path, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(10):
        shape_picture(tuple(COLOURS)[index % 3], index).save(folder / f"{index}.png")
    (folder / "bad.png").write_bytes(b"no image")
    items = tuple(expand_inputs([str(folder)], ()))
    jobs = [
        Job(str(tiny_path), items, tmp_path / f"{name}.jsonl", batch_size=4, device="cpu", part_size=4)
        for name in ("ray", "here")
    ]
    try:
        answered = run_job(jobs[0], RayEngine(1))
    except InceptionError as error:
        if "cannot be started" in str(error):  # it gives its processes 30 seconds
            pytest.skip(str(error))
        raise
    other = run_job(jobs[1])
    assert (answered.images, answered.failed) == (11, 1)

    def rows(path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    for ours, theirs in zip(rows(answered.output), rows(other.output), strict=True):
        assert ours["path"] == theirs["path"]
        assert [score["label"] for score in ours["top"]] == [score["label"] for score in theirs["top"]]
        probabilities = [score["probability"] for score in theirs["top"]]
        assert [score["probability"] for score in ours["top"]] == pytest.approx(probabilities, rel=1e-4)
    assert rows(answered.errors) == rows(other.errors)
