from pathlib import Path

import pytest
import yaml

from pipeline import config

ROOT = Path(__file__).parents[1]
SMALL = {"name": "x", "model": {"name": "liresnet", "num_classes": 10, "image_size": 8, "depth": 3}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def test_overrides_reach_their_key_in_both_spellings(file: Path) -> None:
    settings = config.load(
        file, ["--training.batch-size", "32", "--optimizer.lr=0.5", "--data.augmentation.flip"]
    )
    assert settings.training.batch_size == 32
    assert settings.optimizer.lr == 0.5
    assert settings.data.augmentation.flip is True


def test_options_of_the_model_pass_through(file: Path) -> None:
    settings = config.load(file, ["--model.width", "64"])
    assert settings.model.options == {"depth": 3, "width": 64}


def test_saved_config_reads_back_equal(file: Path, tmp_path: Path) -> None:
    words = ["--epsilon.target", "36/255", "--optimizer.clip_norm", "3"]
    settings = config.load(file, [*words, "--data.augmentation.resized_crop", "{}"])
    config.save(settings, tmp_path / "saved.yaml")
    assert config.load(tmp_path / "saved.yaml") == settings


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--epochs", "5"], "unknown key 'epochs'; did you mean 'training.epochs'"),
        (["--training.epoch", "5"], "did you mean 'training.epochs'"),
        (["--training.epochs", "many"], "key 'training.epochs' has the value 'many'"),
        (["--training.epochs", "0"], "key 'training.epochs' has the value 0"),
        (["--seed", str(2**63)], "key 'seed' has the value 9223372036854775808"),
        (["--sampling.seed", str(2**63)], "input should be less than 9223372036854775808"),
        (["--epsilon.target", "36/0"], 'fraction such as "36/255"'),
        (["--data.backend", "dali"], "'auto', 'ffcv' or 'memory'"),
        (["--name.first", "x"], "'name' is a single value"),
        (["stray"], "expected --key value"),
        (["--certification.epsilons", "1"], "give a list"),
        (["--data.augmentation.randaugment"], "give {} for torchvision's defaults"),
        (["--data.augmentation.resized_crop.scale", "[0.5, 1.2]"], "above 0, not above 1"),
        (["--data.augmentation.resized_crop.ratio", "[2, 1]"], "in this order"),
        (["--data.augmentation.resized_crop.ratio", "[1, .inf]"], "in this order"),
        (["--data.augmentation.resized_crop.scales", "1"], "augmentation.resized_crop.scale'"),
        (["--data.augmentation.randaugment.magnitude", "31"], "must be below bins 31"),
        (["--data.augmentation.randaugment.operations", "0"], "randaugment.operations' has"),
        (["--data.augmentation.randaugment.num_ops", "2"], "unknown key"),
        (["--data.augmentation.cutout", "-1"], "'data.augmentation.cutout' has the value -1"),
        (
            ["--data.augmentation.rand_augment", "{}"],
            "did you mean 'data.augmentation.randaugment'",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_mend(
    file: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(ValueError) as error:
        config.load(file, words)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_two_ways_to_crop_are_one_too_many(file: Path) -> None:
    words = ["--data.augmentation.crop_padding", "4", "--data.augmentation.resized_crop", "{}"]
    with pytest.raises(ValueError, match="two ways to crop: set crop_padding to 0") as error:
        config.load(file, words)
    assert "\n" not in str(error.value)


def test_an_optional_section_is_switched_on_by_its_name_or_by_a_key(
    file: Path, tmp_path: Path
) -> None:
    off = config.load(file)
    assert off.data.augmentation.randaugment is None
    config.save(off, tmp_path / "saved.yaml")  # where it stands as null
    words = [
        "--data.augmentation.randaugment.magnitude",
        "5",
        "--data.augmentation.resized-crop={}",
    ]
    on = config.load(tmp_path / "saved.yaml", words).data.augmentation
    assert on.randaugment == config.RandAugmentConfig(operations=2, magnitude=5, bins=31)
    assert on.resized_crop == config.ResizedCropConfig(scale=(0.08, 1), ratio=(3 / 4, 4 / 3))


def test_a_missing_file_names_its_neighbour(file: Path) -> None:
    with pytest.raises(ValueError, match=r"does not exist; did you mean .*small\.yaml"):
        config.load(file.with_name("smal.yaml"))


def test_a_missing_key_is_named(file: Path) -> None:
    file.write_text(yaml.safe_dump({"name": "x"}))
    with pytest.raises(ValueError, match="key 'model' is missing"):
        config.load(file)


@pytest.mark.parametrize("text", ["- 1\n", "a: [1\n"])
def test_a_file_that_is_no_mapping_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=r"is not YAML|must be a mapping"):
        config.load(file)


def test_first_difference_names_the_key(file: Path) -> None:
    old, new = config.load(file), config.load(file, ["--training.epochs", "7", "--output", "y"])
    assert (
        config.first_difference(old, new, ignore={"output"}) == "training.epochs: 1 there, 7 here"
    )
    assert config.first_difference(old, new, ignore={"output", "training"}) is None
    deeper = config.load(file, ["--model.width", "64"])
    assert (
        config.first_difference(old, deeper, ignore=set()) == "model.width: nothing there, 64 here"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_loads_and_has_its_header(path: Path) -> None:
    config.load(path)
    header = path.read_text().split("\n\n")[0]
    for word in ("Command", "Hardware", "Time", "Expected", "Source", "Status"):
        assert f"# {word}" in header, f"{path.name} does not say {word}"
    assert "MEASURE" not in header


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        (90, 90),
        ("90", 90),
        ("2:30", 3),  # minutes:seconds, rounded up
        ("2:30:00", 150),
        ("1-12", 36 * 60),
        ("1-12:30", 36 * 60 + 30),
        ("2-00:00:01", 2 * 1440 + 1),
        ("UNLIMITED", 0),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it(
    time: int | str, minutes: int, file: Path, tmp_path: Path
) -> None:
    file.write_text(
        file.read_text() + f"cluster: {{time: {time}, signal_seconds: 60}}\n"
    )  # as a person types it
    in_file = config.load(file)
    typed = config.load(file, ["--cluster.time", str(time)])
    assert in_file.cluster.minutes == typed.cluster.minutes == minutes
    config.save(in_file, tmp_path / "saved.yaml")
    assert config.load(tmp_path / "saved.yaml") == in_file


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--cluster.time", "tomorrow"], "'cluster.time' has the value 'tomorrow': give minutes"),
        (["--cluster.time", "4"], "signal_seconds 300 leaves nothing of a time of 4 minutes"),
        (["--cluster.sbatch.nodes", "2"], "nodes has a key of its own: set cluster.nodes"),
        (["--cluster.sbatch.open_mode", "w"], "open_mode cannot be set: logs and requeue"),
        (["--cluster.tasks_per_node", "4"], "differs from gpus_per_node 8"),
        (["--cluster.environment", "{NCCL-DEBUG: INFO}"], "no name of an environment variable"),
        (["--cluster.environment", "{NCCL_DEBUG: true}"], "give NCCL_DEBUG a text or a number"),
        (["--cluster.partion", "a"], "did you mean 'cluster.partition'?"),
    ],
)
def test_a_mistake_in_cluster_is_one_sentence(file: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        config.load(file, words)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_tasks_of_a_cluster(file: Path) -> None:
    assert config.load(file, ["--cluster.nodes", "4"]).cluster.tasks == 32
    words = ["--cluster.nodes", "3", "--cluster.gpus_per_node", "0"]
    assert config.load(file, words).cluster.tasks == 3
    assert config.load(file, [*words, "--cluster.tasks_per_node", "2"]).cluster.tasks == 6
