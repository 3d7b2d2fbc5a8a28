"""Many images to a table: the same answers, killed and continued anywhere, bad inputs apart."""

import csv
import io
import json
import pickle
import subprocess
import sys
import time
from functools import partial

import pytest
from shapes import COLOURS, shape_picture

from inception.data.sharding import write_shards
from inception.data.sources import open_dataset
from inception.errors import DataError, UsageError, WriteError
from inception.runtime.batch import Job, answer_here, answer_parts, run_job
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load
from inception.runtime.tables import answers_table, errors_table


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty pictures and two files that are none."""
    folder = tmp_path_factory.mktemp("many") / "pictures"
    folder.mkdir()
    for index in range(20):
        shape_picture(tuple(COLOURS)[index % 3], index).save(folder / f"{index:02}.png")
    (folder / "05b.png").write_bytes(b"no image")
    (folder / "17b.png").write_bytes(b"")
    return folder


@pytest.fixture
def job(tiny_path, pictures, tmp_path):
    items = tuple(expand_inputs([str(pictures)], ()))
    output = tmp_path / "out" / "answers.jsonl"
    return Job(str(tiny_path), items, output, top=2, batch_size=3, device="cpu", part_size=6)


def expected_rows(job):
    answers = load(job.bundle, job.device).predict_stream(iter(job.items), job.top, batch_size=job.batch_size)
    return [answer.to_dict() for answer in answers]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_hold_what_the_stream_answers(job):
    answered = run_job(job)
    rows = expected_rows(job)
    assert lines(job.output) == [row for row in rows if "top" in row]
    assert lines(answered.errors) == [row for row in rows if "error" in row]
    assert answered.errors.name == "answers.errors.jsonl"
    assert (answered.images, answered.failed, answered.kept, answered.computed) == (22, 2, 0, 22)
    assert sorted(path.name for path in job.output.parent.iterdir()) == [
        "answers.errors.jsonl",
        "answers.jsonl",
    ]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stopped_job_goes_on_and_ends_the_same(job, tmp_path, after):
    looked_at = []

    def stopping(job, parts):
        for number, part in enumerate(answer_here(job, parts)):
            yield part
            if number + 1 >= after:
                break
        raise KeyboardInterrupt

    def counting(job, parts):
        looked_at.extend(parts)
        return answer_here(job, parts)

    with pytest.raises(KeyboardInterrupt):
        run_job(job, stopping)
    assert not job.output.exists()
    kept = len(list(job.folder.glob("part-*")))
    answered = run_job(job, counting)
    assert (answered.kept, len(looked_at)) == (kept, 4 - kept)
    straight = Job(**{**vars(job), "output": tmp_path / "straight.jsonl"})
    run_job(straight)
    assert job.output.read_bytes() == straight.output.read_bytes()


def test_killed_at_any_moment_the_same_command_ends_the_same(job, tiny_path, pictures, tmp_path):
    """SIGKILL while it computes, then again, then left alone."""
    program = (
        "import functools, sys; from inception.cli import main, predict\n"
        "predict.Job = functools.partial(predict.Job, part_size=6)\n"
        "sys.exit(main.run(sys.argv[1:]))"
    )
    output = tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", program, "predict", tiny_path, pictures, "--output", output]
    command += ["--top", "2", "--batch-size", "3", "--device", "cpu"]
    parts = output.with_name("killed.jsonl.parts")
    for wanted in (1, 2):
        process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE)
        while process.poll() is None and len(list(parts.glob("part-*"))) < wanted:
            time.sleep(0.001)
        process.kill()
        process.communicate()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "2 without an answer in" in done.stderr
    assert lines(output) == [row for row in expected_rows(job) if "top" in row]
    assert not parts.exists()


def test_a_part_written_twice_is_there_once(job):
    """As when a worker dies after writing: another does the part again, with the same bytes."""

    def twice(job, parts):
        classifier = load(job.bundle, job.device)
        for part in parts:
            list(answer_parts(job, classifier, [part]))
            first = job.part_path(part).read_bytes()
            yield from answer_parts(job, classifier, [part])
            assert job.part_path(part).read_bytes() == first

    run_job(job, twice)
    assert lines(job.output) == [row for row in expected_rows(job) if "top" in row]


def test_other_jobs_and_finished_tables_are_left_alone(job, tmp_path):
    def never(job, parts):
        raise KeyboardInterrupt

    def once(job, parts):
        yield from answer_parts(job, load(job.bundle, job.device), parts[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(Job(**{**vars(job), "top": 1}), never)  # leaves no answers, so it is in nobody's way
    with pytest.raises(KeyboardInterrupt):
        run_job(job, once)
    with pytest.raises(UsageError, match="answers of another job"):
        run_job(Job(**{**vars(job), "top": 1}))
    run_job(job)
    content = job.output.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        run_job(job)
    assert job.output.read_bytes() == content


def test_what_cannot_be_written_is_one_sentence(job, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="cannot write"):
        run_job(Job(**{**vars(job), "output": tmp_path / "file" / "answers.jsonl"}))
    with pytest.raises(UsageError, match=r"answers are written as \.jsonl, \.csv or \.parquet"):
        run_job(Job(**{**vars(job), "output": tmp_path / "answers.txt"}))


def test_csv(job):
    answered = run_job(Job(**{**vars(job), "output": job.output.with_suffix(".csv")}))
    rows = list(csv.DictReader(io.StringIO(answered.output.read_text())))
    good = [row for row in expected_rows(job) if "top" in row]
    assert [row["path"] for row in rows] == [row["path"] for row in good]
    assert rows[0].keys() == {"path", "label1", "probability1", "label2", "probability2"}
    for row, other in zip(rows, good, strict=True):
        assert (row["label1"], row["label2"]) == tuple(score["label"] for score in other["top"])
        assert float(row["probability2"]) == pytest.approx(other["top"][1]["probability"], abs=1e-6)
    assert answered.errors.read_text().splitlines()[0] == "path,error"


def test_parquet(job):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra embed)")
    answered = run_job(Job(**{**vars(job), "output": job.output.with_suffix(".parquet")}))
    rows = parquet.read_table(answered.output).to_pylist()
    good = [row for row in expected_rows(job) if "top" in row]
    assert [row["path"] for row in rows] == [row["path"] for row in good]
    assert [row["labels"] for row in rows] == [[s["label"] for s in row["top"]] for row in good]
    assert [row["indices"] for row in rows] == [[s["index"] for s in row["top"]] for row in good]
    assert rows[3]["probabilities"] == pytest.approx([s["probability"] for s in good[3]["top"]])
    assert parquet.read_table(answered.errors).num_rows == 2


def test_names_that_are_no_text_are_escaped(tmp_path):
    """Path, label and error alike."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra embed)")
    good = {"path": "\udcff.png", "top": [{"label": "\udcfe", "index": 0, "probability": 0.5}]}
    bad = {"path": "\udcfd.png", "error": "\udcfd.png is no image"}
    for name, table, row in (("good", partial(answers_table, top=1), good), ("bad", errors_table, bad)):
        with table(tmp_path / f"{name}.parquet") as add:
            add(row)
    [row] = parquet.read_table(tmp_path / "good.parquet").to_pylist()
    assert (row["path"], row["labels"]) == ("\\udcff.png", ["\\udcfe"])
    [row] = parquet.read_table(tmp_path / "bad.parquet").to_pylist()
    assert row == {"path": "\\udcfd.png", "error": "\\udcfd.png is no image"}


def test_without_pyarrow_the_extra_is_named(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"inception\[embed\]"):
        run_job(Job(**{**vars(job), "output": job.output.with_suffix(".parquet")}))


def test_shards_answer_as_the_folder_does(shapes, tiny_path, tmp_path):
    write_shards(open_dataset(shapes), tmp_path / "shards", shard_images=7)
    dataset = open_dataset(tmp_path / "shards")
    items = tuple(expand_inputs([str(tmp_path / "shards")], ()))
    assert [name for name, _ in items] == [f"{tmp_path}/shards/{sample.path}" for sample in dataset.samples]
    run_job(Job(str(tiny_path), items, tmp_path / "answers.jsonl", batch_size=3, device="cpu"))
    expected = load(tiny_path, "cpu").predict([dataset.read(sample) for sample in dataset.samples[:9]])
    found = lines(tmp_path / "answers.jsonl")
    for row, answer in zip(found, expected, strict=False):
        assert row["top"][0]["label"] == answer.label


def test_rows_of_a_parquet_file(pictures, tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (extra embed)")
    from pyarrow import parquet

    data = [(pictures / f"{index:02}.png").read_bytes() for index in range(5)]
    plain = arrow.table({"image": data, "path": ["a.png", "b.png", None, "d.png", "e.png"]})
    parquet.write_table(plain, tmp_path / "plain.parquet", row_group_size=2)
    nested = arrow.table({"image": [{"bytes": item, "path": "x"} for item in data] + [None]})
    parquet.write_table(nested, tmp_path / "nested.parquet")
    items = list(expand_inputs([str(tmp_path / "plain.parquet")], ()))
    names = ["000000/a.png", "000001/b.png", "000002", "000003/d.png", "000004/e.png"]
    assert [name for name, _ in items] == [f"{tmp_path}/plain.parquet/{name}" for name in names]
    sizes = [shape_picture(tuple(COLOURS)[index % 3], index).size for index in range(5)]
    assert [opener().size for _, opener in items] == sizes
    assert [opener().size for _, opener in pickle.loads(pickle.dumps(items))] == sizes
    *good, bad = expand_inputs([str(tmp_path / "nested.parquet")], ())
    assert [opener().size for _, opener in good] == sizes
    with pytest.raises(DataError, match="holds no bytes"):
        bad[1]()
    parquet.write_table(arrow.table({"text": ["a"]}), tmp_path / "text.parquet")
    (tmp_path / "half.parquet").write_bytes((tmp_path / "plain.parquet").read_bytes()[:300])
    for name, sentence in (("text", "no column of images"), ("half", "not a complete Parquet file")):
        [(_, opener)] = expand_inputs([str(tmp_path / f"{name}.parquet")], ())
        with pytest.raises(DataError, match=sentence):
            opener()
