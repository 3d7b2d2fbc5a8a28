"""What `import inception` offers, as the documentation shows it."""

import subprocess
import sys

import pytest
import torch
from shapes import shape_picture, tiny_config

import inception


def test_every_public_name_can_be_had():
    for name in inception.__all__:
        assert getattr(inception, name) is not None
    assert set(inception.__all__) <= set(dir(inception))
    with pytest.raises(AttributeError, match="no attribute 'create_modell'"):
        inception.create_modell  # noqa: B018


def test_names_for_type_checkers_are_the_names_at_run_time():
    """The block under TYPE_CHECKING imports exactly what the table gives."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(inception.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    listed = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert listed == inception._PUBLIC


def test_importing_costs_nothing():
    script = "import inception, sys; print({'torch', 'numpy', 'PIL'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_models_as_in_the_fixed_interface():
    names = inception.list_models()
    assert {"googlenet", "googlenet_bn", "googlenet_tv", "googlenet_5h"} <= set(names)
    assert inception.list_models("googlenet_t*") == ["googlenet_tv"]
    model = inception.create_model("googlenet_bn", num_classes=7, in_chans=1, width=0.05).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


def test_the_common_case_in_five_lines(shapes, tmp_path):
    result = inception.train_bundle(tiny_config(shapes, tmp_path / "run", epochs=4))
    classifier = inception.load(result.bundle)
    evaluation = inception.evaluate_bundle(classifier, shapes).evaluation
    answer = classifier.predict([shape_picture("amber", 500)], top=2)[0]
    assert evaluation.top1 > 0.8
    assert answer.top[0].label == "amber"

    assert isinstance(classifier.model, torch.nn.Module)
    assert classifier.labels == ("amber", "jade", "violet")
    assert isinstance(classifier.preprocess, inception.Preprocess)
    bundle = inception.load_bundle(result.bundle)
    inception.save_bundle(bundle, tmp_path / "copy.zip")
    assert inception.load(tmp_path / "copy.zip").predict(shape_picture("jade", 1))[0].label == "jade"
    model = inception.create_model("googlenet_bn", pretrained=result.bundle)
    assert model.num_classes == 3
    assert inception.check_dataset(shapes).images == 72
    assert inception.open_dataset(shapes).labels == classifier.labels


def test_every_error_on_purpose_is_an_inception_error():
    from inception import errors

    kinds = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(kinds) >= 8
    assert all(issubclass(kind, inception.InceptionError) for kind in kinds)
    assert errors.UsageError.exit_code == 2
    assert errors.BundleError.exit_code == 1
    assert errors.first_line(ValueError("one\ntwo")) == "one"
    assert errors.first_line(ValueError()) == "ValueError"
