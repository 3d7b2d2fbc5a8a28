"""Tables as labelling tools, Kaggle and training scripts write them: read, or refused with what to do."""

from pathlib import Path

import pytest

from inception.data.options import ReadOptions
from inception.data.sources import open_dataset
from inception.errors import DataError, UsageError

NAMES = ("cat", "dog")


@pytest.fixture
def table(make_tree):
    """Write a table beside `images/0.png` to `images/5.png`, and open it."""

    def write(header: str, rows: list[str], name: str = "set.csv", encoding: str = "utf-8", **options):
        root = make_tree([f"images/{number}.png" for number in range(6)])
        path = Path(root) / name
        path.write_bytes("\n".join([*([header] if header else []), *rows, ""]).encode(encoding))
        return open_dataset(path, options=ReadOptions(**options))

    return write


def rows(form: str, **more: list[str]) -> list[str]:
    """Six rows of alternating labels in the form given, with `{n}`, `{label}` and one word of each list."""
    return [
        form.format(n=n, label=NAMES[n % 2], **{key: words[n % len(words)] for key, words in more.items()})
        for n in range(6)
    ]


def sizes(dataset) -> dict[str, int]:
    return {split: len(dataset.split(split)) for split in dataset.splits}


@pytest.mark.parametrize("column", ["Usage", "split", "set", "Subset", "partition", "data set", "phase"])
@pytest.mark.parametrize(
    "words", [("Training", "PublicTest", "PrivateTest"), ("TRAIN", "valid", "test"), ("train", "dev", "eval")]
)
def test_a_column_of_splits_is_the_split_whatever_it_is_called(table, column, words):
    dataset = table(f"path,label,{column}", rows("images/{n}.png,{label},{s}", s=list(words)))
    assert sizes(dataset) == {"train": 2, "val": 2, "test": 2}
    assert not dataset.automatic_split
    assert any(f"'{column}' is read as the split" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("column", "one", "zero"),
    [
        ("is_training", "train", "test"),
        ("is_train", "train", "test"),
        ("is_valid", "val", "train"),
        ("is_test", "test", "train"),
    ],
)
@pytest.mark.parametrize("words", [("1", "0"), ("True", "False"), ("1.0", "0.0")])
def test_flags_of_a_split(table, column, one, zero, words):
    dataset = table(
        f"path,label,{column}", [f"images/{n}.png,{NAMES[n % 2]},{words[n < 2]}" for n in range(6)]
    )
    by_path = {sample.path: sample.split for sample in dataset.samples}
    if {one, zero} == {"train", "val"}:
        assert (by_path["images/3.png"], by_path["images/0.png"]) == (one, zero)
    else:
        assert (by_path["images/3.png"] == "test") == (one == "test")


def test_numbered_folds_are_refused_until_one_is_chosen(table):
    lines = rows("images/{n}.png,{label},{fold}", fold=["0", "0", "1", "1", "2", "2"])
    with pytest.raises(DataError, match="--val-fold N"):
        table("path,label,fold", lines)
    assert sizes(table("path,label,fold", lines, val_fold="1", test_fold="2")) == {
        "train": 2,
        "val": 2,
        "test": 2,
    }
    with pytest.raises(DataError, match="no fold '7'"):
        table("path,label,fold", lines, val_fold="7")
    assert table("path,label,fold", lines, split_column="none").automatic_split


def test_a_column_like_a_split_that_is_not_understood_is_refused(table):
    with pytest.raises(DataError, match="--split-column none"):
        table("path,label,subset", rows("images/{n}.png,{label},{s}", s=["summer", "winter"]))
    with pytest.raises(DataError, match="look like splits"):
        table("path,label,where", rows("images/{n}.png,{label},{s}", s=["train", "test"]))
    lines = rows("images/{n}.png,{label},{s}", s=["train", "train", "val"])
    assert sizes(table("path,label,where", lines, split_column="where")) == {"train": 4, "val": 2}


@pytest.mark.parametrize("column", ["test", "train", "in_test", "inTest", "holdout", "IsDev"])
def test_flags_called_like_a_split_are_refused_until_it_is_said_what_they_are(table, column):
    lines = [f"images/{n}.png,{NAMES[n % 2]},{int(n > 1)}" for n in range(6)]
    with pytest.raises(DataError, match="called like a split"):
        table(f"path,label,{column}", lines)
    assert not table(f"path,label,{column}", lines, split_column=column).automatic_split
    assert table(f"path,label,{column}", lines, split_column="none").automatic_split
    with pytest.raises(DataError, match="called like a split"):
        table(
            f"path,cat,dog,{column}", [f"images/{n}.png,{n % 2},{1 - n % 2},{int(n > 1)}" for n in range(6)]
        )


@pytest.mark.parametrize("column", ["cv_fold", "kfold", "fold_id", "Fold"])
def test_columns_of_folds_by_any_name(table, column):
    lines = rows("images/{n}.png,{label},{fold}", fold=["0", "0", "1", "1", "2", "2"])
    with pytest.raises(DataError, match="--val-fold N"):
        table(f"path,label,{column}", lines)
    assert sizes(table(f"path,label,{column}", lines, val_fold="0")) == {"train": 4, "val": 2}


def test_columns_that_are_not_used_are_listed(table):
    dataset = table("path,label,patient,age", rows("images/{n}.png,{label},p{n},{n}0"))
    assert "columns that are not used: patient, age" in dataset.notes
    several = table("path,labels,patient", rows("images/{n}.png,{label};sofa,p{n}"))
    assert "columns that are not used: patient" in several.notes


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("path,labels", 'images/{n}.png,"{label},sofa"'),
        ("path,labels", "images/{n}.png,{label}|sofa"),
        ("path,tags", "images/{n}.png,{label} sofa"),
        ("path,labels", "images/{n}.png,\"['{label}', 'sofa']\""),
        ("path,labels", 'images/{n}.png,"[""{label}"", ""sofa""]"'),
        ("image,choice", 'images/{n}.png,"{{""choices"": [""{label}"", ""sofa""]}}"'),
        ("Image Index,Finding Labels", "images/{n}.png,{label}|sofa"),
    ],
)
def test_several_labels_in_a_cell(table, header, form):
    dataset = table(header, rows(form))
    assert dataset.multilabel
    assert dataset.labels == ("cat", "dog", "sofa")
    assert all(len(sample.labels) == 2 for sample in dataset.samples)


@pytest.mark.parametrize("labels", [("tench, Tinca tinca", "goldfish"), ("golden retriever", "tabby cat")])
def test_names_with_commas_and_spaces_stay_whole(table, labels):
    dataset = table("path,label", rows('images/{n}.png,"{s}"', s=list(labels)))
    assert not dataset.multilabel
    assert set(dataset.labels) == set(labels)


def test_a_single_column_whose_parts_also_stand_alone_is_divided(table):
    lines = [
        f'images/{n}.png,"{cell}"' for n, cell in enumerate(["cat", "dog", "cat,dog", "cat", "dog", "cat"])
    ]
    dataset = table("path,label", lines)
    assert dataset.multilabel
    assert dataset.labels == ("cat", "dog")
    assert not table("path,label", lines, label_separator="none").multilabel


@pytest.mark.parametrize(
    ("header", "form"),
    [
        (",path,cat,dog", "{n},images/{n}.png,{a},{b}"),
        ("path,cat,dog,patient", "images/{n}.png,{a},{b},p{n}"),
        ("path,cat,dog", "images/{n}.png,{a}.0,{b}.0"),
    ],
)
def test_columns_of_zero_and_one_beside_others(table, header, form):
    dataset = table(header, rows(form, a=["1", "0"], b=["0", "1"]))
    assert dataset.multilabel
    assert dataset.labels == ("cat", "dog")


def test_uncertain_and_blank_labels_are_absent_and_said(table):
    dataset = table("path,cat,dog", rows("images/{n}.png,{a},{b}", a=["1", "-1", "0"], b=["", "1"]))
    assert sum(len(sample.labels) for sample in dataset.samples) == 2 + 3
    assert any("2 uncertain labels (-1)" in note for note in dataset.notes)
    assert any("3 blank cells" in note for note in dataset.notes)


@pytest.mark.parametrize("word", ["nan", "", "NULL", "N/A", "<NA>"])
def test_missing_labels_are_counted_and_named(table, word):
    lines = [f"images/{n}.png,{NAMES[n % 2]}" for n in range(5)]
    dataset = table("path,label", [*lines, f"images/5.png,{word}"])
    assert dataset.labels == NAMES
    assert dataset.left_out == {"no label (line 7)": ("images/5.png",)}


def test_none_is_a_class_where_it_is_frequent(table):
    dataset = table("path,label", rows("images/{n}.png,{s}", s=["none", "cat"]))
    assert dataset.labels == ("cat", "none")
    assert any("taken as a class" in note for note in dataset.notes)


def test_labels_that_differ_by_little(table):
    apart = table("path,label", rows("images/{n}.png,{s}", s=["cat", "Cat ", "dog"]))
    assert apart.labels == ("Cat", "cat", "dog")
    assert any("Cat and cat" in note for note in apart.notes)
    composed = table("path,label", rows("images/{n}.png,{s}", s=["caf\u00e9", "cafe\u0301", "dog"]))
    assert composed.labels == ("caf\u00e9", "dog")
    floats = table("path,label", rows("images/{n}.png,{s}", s=["0.0", "1.0"]))
    assert floats.labels == ("0", "1")


@pytest.mark.parametrize(
    ("name", "header", "form"),
    [
        ("train.csv", "image_id,label", "{n},{label}"),
        ("train.csv", "id_code,diagnosis", "{n},{label}"),
        ("train.csv", "Image,Id", "{n}.png,{label}"),
        ("train.csv", "image_path,class_name", "images/{n}.png,{label}"),
        ("metadata.csv", "file_name,text", "images/{n}.png,{label}"),
        ("metadata.jsonl", "", '{{"file_name": "images/{n}.png", "label": "{label}"}}'),
        ("labels.csv", "name,label", "images/{n}.PNG,{label}"),
        ("automl.csv", "", "TRAIN,gs://bucket/images/{n}.png,{label}"),
        ("list.txt", "", "images/{n}.png {label}"),
        ("list.csv", "", "images/{n}.png,{label}"),
        ("list.csv", "path,label", "C:\\data\\images\\{n}.png,{label}"),
        ("list.csv", "path,label", "/data/local-files/?d=images/{n}.png,{label}"),
        ("list.csv", "path,label", "file:///home/me/images/{n}.png,{label}"),
        ("list.csv", "image,label", "https://host.example/a/images/{n}.png,{label}"),
        ("list.csv", "sep=;\npath;label", "images/{n}.png;{label}"),
        ("list.csv", "path,label,,", "images/{n}.png,{label},,"),
    ],
)
def test_what_other_tools_write_is_read(table, name, header, form):
    dataset = table(header, rows(form), name)
    assert dataset.labels == NAMES
    assert {sample.path for sample in dataset.samples} == {f"images/{n}.png" for n in range(6)}
    assert all(dataset.labels[s.label] == NAMES[int(s.path[7]) % 2] for s in dataset.samples)


def test_columns_by_option(table):
    lines = rows("{n},images/{n}.png,x,{label},{s}", s=["a", "b"])
    header = "key,where,other,kind,part"
    with pytest.raises(DataError, match="--path-column"):
        table(header, lines)
    assert table(header, lines, path_column="where", label_column="kind").labels == NAMES
    with pytest.raises(UsageError, match=r"the columns of .* are key, where"):
        table(header, lines, path_column="nowhere")


def test_lists_of_numbers(table):
    one = table("", rows("images/{n}.png {s}", s=["0", "1"]), "list.txt")
    assert (one.labels, one.multilabel) == (("0", "1"), False)
    several = table("", rows("images/{n}.png {s}", s=["0 2", "1"]), "list.txt")
    assert (several.labels, several.multilabel) == (("0", "1", "2"), True)
    mxnet = table("", rows("{n}\t{s}.000000\timages/{n}.png", s=["0", "1"]), "list.lst")
    assert mxnet.labels == ("0", "1")


def test_parquet(table, make_tree):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    root = make_tree([f"images/{n}.png" for n in range(6)])
    paths = [f"images/{n}.png" for n in range(6)]
    parquet.write_table(
        pyarrow.table({"path": paths, "label": [n % 2 for n in range(6)]}), root / "a.parquet"
    )
    assert open_dataset(root / "a.parquet").labels == ("0", "1")
    parquet.write_table(pyarrow.table({"image": [b"x"] * 6, "label": [0] * 6}), root / "b.parquet")
    with pytest.raises(DataError, match="holds the images themselves"):
        open_dataset(root / "b.parquet")


def test_what_a_column_of_lists_leaves_unsaid(table):
    dataset = table("path,labels", rows("images/{n}.png,{s}", s=["cat;dog", "nan", "dog"]))
    assert "2 rows have no label (nan)" in dataset.notes
    single = table("path,labels", rows("images/{n}.png,{label}"))
    assert any("--label-column labels reads one class each" in note for note in single.notes)
    assert not table("path,labels", rows("images/{n}.png,{label}"), label_column="labels").multilabel
    assert any(
        "Cat and cat" in n for n in table("path,Cat,cat", rows("images/{n}.png,1,{n}"[:-3] + "0")).notes
    )


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.jsonl"])
def test_no_control_character_gets_into_a_class(table, name):
    form = {
        "list.txt": "images/{n}.png {s}",
        "list.csv": "images/{n}.png,{s}",
        "list.jsonl": '{{"path": "images/{n}.png", "label": "{s}"}}',
    }
    bad = "d\\u0000g" if name == "list.jsonl" else "d\0g"
    with pytest.raises(DataError, match="control character"):
        table("path,label" if name == "list.csv" else "", rows(form[name], s=["cat", bad]), name)
    with pytest.raises(DataError, match=r"line 1|line 2"):
        lines = rows(form[name], s=["caf\u00e9", "dog"])
        table("path,label" if name == "list.csv" else "", lines, name, encoding="cp1252")


def test_automl_with_rows_that_are_not_assigned(table):
    dataset = table(
        "", rows("{s},images/{n}.png,{label}", s=["TRAIN", "TRAIN", "TEST", "TEST", "UNASSIGNED"]), "a.csv"
    )
    assert sizes(dataset)["test"] == 2


def test_encodings(table):
    assert table("path,label", rows("images/{n}.png,{label}"), encoding="utf-16").labels == NAMES
    with pytest.raises(DataError, match=r"line 2, is not UTF-8 .* --encoding cp1252"):
        table("path,label", rows("images/{n}.png,{s}", s=["caf\u00e9", "dog"]), encoding="latin-1")


def test_control_characters_are_refused(table):
    with pytest.raises(DataError, match="line 3, holds the control character"):
        table("path,label", rows("images/{n}.png,{s}", s=["cat", "d\0g"]))


def test_long_fields_and_quoted_line_breaks(table):
    lines = rows('images/{n}.png,{label},"{s}"', s=["x" * 200_000, "a\nb"])
    assert table("path,label,note", lines).labels == NAMES


def test_files_that_are_elsewhere_name_the_option(table):
    for path in ("C:/other/{n}.png", "https://host.example/{n}0.png"):
        with pytest.raises(DataError, match="--root"):
            table("path,label", rows(path + "x,{label}"))


@pytest.mark.parametrize(
    "values", [("training set", "test set"), ("\u8bad\u7ec3", "\u6d4b\u8bd5"), ("Train", "dev")]
)
def test_splits_in_a_column_of_another_name_are_refused(table, values):
    with pytest.raises(DataError, match="which look like splits"):
        table("path,label,kind", rows("images/{n}.png,{label},{s}", s=[values[0]] * 2 + [values[1]] * 2))


@pytest.mark.parametrize(
    "cell", ["{{'{label}', 'sofa'}}", "['{label}' 'sofa']", "{label}/sofa", "{label}+sofa"]
)
def test_other_ways_to_write_several_labels(table, cell):
    lines = rows(f'images/{{n}}.png,"{cell}"')
    lines += ["images/../images/0.png,sofa"] * 0
    assert table("path,labels", lines).labels == ("cat", "dog", "sofa") or "/" in cell or "+" in cell
    recurring = ["sofa", "cat", "dog"]
    mixed = [
        f'images/{n}.png,"{cell.format(label=NAMES[n % 2]) if n < 3 else recurring[n - 3]}"' for n in range(6)
    ]
    assert table("path,labels", mixed).labels == ("cat", "dog", "sofa")


def test_what_is_no_label_is_not_taken_as_one(table):
    captions = rows("images/{n}.png,a photo number {n}")
    with pytest.raises(DataError, match="--label-column"):
        table("file_name,text", captions)
    assert len(table("file_name,text", captions, label_column="text", allow_left_out=True).labels) > 1
    exported = rows("1,2024,{n},images/{n}.png,{label},3.5")
    read = table("annotator,created_at,annotation_id,image,choice,lead_time", exported)
    assert (read.labels, read.multilabel) == (NAMES, False)
    with pytest.raises(DataError, match="--label-column"):
        table("path,malignant,age", rows("images/{n}.png,{s},4{n}", s=["0", "1"]))


def test_a_plural_column_wins_over_weak_names(table):
    dataset = table("Image Index,Finding Labels,y]", rows("images/{n}.png,{label}|sofa,0.1{n}"))
    assert dataset.labels == ("cat", "dog", "sofa")


def test_booleans_are_two_classes(table):
    assert table("path,label", rows("images/{n}.png,{s}", s=["True", "false", "TRUE"])).labels == (
        "false",
        "true",
    )
