import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.training import config_from_values, config_schema, read_config, write_config
from ghostsr_ext.training.configuration_files import check_same_run

MINIMAL = '[model]\npreset = "edsr"\n[data]\ntrain = ["pictures"]\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(MINIMAL)
    return path


def test_a_file_needs_a_network_and_pictures_only(file):
    config = read_config(file)

    assert config.model.preset == "edsr"
    assert config.training.optimizer == "adam"
    assert config.training.lr == 1e-4


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{b=" * 100_000,
        "a" + ".a" * 100_000 + " = 1",
        "[model.arguments" + ".a" * 500 + "]",
        "[model]\narguments = " + "[" * 500 + "]" * 500,
        "a = " + "1" * 5000,
        "a = 1" + "0" * 5000 + ".0",
        "[training]\nlr = " + "1" * 4000,
        "[training]\nsteps = " + "1" * 4000,
        "[training]\nsteps = 0x" + "f" * 5000,
        "[training]\nlr = 0x" + "f" * 5000,
        "[model.arguments]\nfeatures = 0x" + "f" * 5000,
        "\x00",
        '[training]\noptimizer = "\\u001b[31m' + "x" * 100_000 + '"',
    ],
    ids=range(14),
)
def test_hostile_files_are_one_short_error(file, text):
    file.write_text(text)

    with pytest.raises(InputError, match=r"config\.toml: ") as error:
        read_config(file)
    assert len(str(error.value)) <= 2000
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "override",
    ["training.lr=" + "[" * 100_000, "training.lr=" + "1" * 5000, "a" + ".a" * 100 + "=1"],
    ids=range(3),
)
def test_hostile_overrides_are_one_short_error(file, override):
    with pytest.raises(InputError, match=r"training\.lr|tables in tables") as error:
        read_config(file, [override])
    assert len(str(error.value)) <= 2000


def test_files_that_cannot_be_configurations_are_not_read(tmp_path):
    large = tmp_path / "large.toml"
    with large.open("wb") as sparse:
        sparse.truncate(2**40)
    for path in (large, tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="is no file of at most 262144 bytes"):
            read_config(path)


def test_what_is_missing_is_named(file):
    file.write_text('[model]\npreset = "edsr"\n')

    with pytest.raises(InputError, match=r"config\.toml: data: is missing"):
        read_config(file)


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("training.zzzzzzzzzzzzzzzzzz", r"known are .*training\.lr"),
        ("training.batchsize", r"did you mean training\.batch_size\?"),
        ("traning.lr", r"did you mean training\?"),
        ("schedule.lr", r"did you mean training\.lr\?"),
    ],
)
def test_an_unknown_key_brings_the_nearest_right_one(file, key, suggestion):
    with pytest.raises(InputError, match=f"{key.split('.')[0]}.*unknown key; {suggestion}"):
        read_config(file, [f"{key}=1"])


def test_every_wrong_value_is_named_with_what_was_found(file):
    with pytest.raises(InputError) as raised:
        read_config(file, ["training.lr=-1", "loss.kind=l3"])

    assert "training.lr: -1: Input should be greater than 0" in str(raised.value)
    assert "loss.kind: 'l3'" in str(raised.value)


def test_overrides_are_toml_values_or_plain_texts(file):
    config = read_config(
        file,
        [
            "training.lr=1e-3",
            "loss.kind=charbonnier",
            'data.train=["a", "b"]',
            "data.augment=false",
        ],
    )

    assert config.training.lr == 1e-3
    assert config.loss.kind == "charbonnier"
    assert [str(path) for path in config.data.train] == ["a", "b"]
    assert config.data.augment is False


@pytest.mark.parametrize("override", ["training.lr", "=1", ".lr=1", "training.=1"])
def test_an_override_without_key_or_value_is_refused(file, override):
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        read_config(file, [override])


def test_an_override_inside_of_a_value_is_refused(file):
    with pytest.raises(InputError, match="preset is a value, not a table"):
        read_config(file, ["model.preset.x=1"])


def test_a_file_that_is_no_toml_is_named(file):
    file.write_text("[model\n")

    with pytest.raises(InputError, match=r"config\.toml: is no TOML"):
        read_config(file)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config .*none\.toml: cannot be read"):
        read_config(tmp_path / "none.toml")


def test_what_is_written_has_every_default_and_reads_as_the_same(file, tmp_path):
    config = read_config(file, ["training.clip_gradient=0.5"])

    write_config(config, tmp_path / "written.toml")

    assert "weight_decay = 0.0" in (tmp_path / "written.toml").read_text()
    assert read_config(tmp_path / "written.toml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.init=a.pth"], "either preset .* or init"),
        (
            ["model={init='a.pth', pretrained='b.pth'}"],
            "pretrained belongs to preset",
        ),
        (["distillation.teacher=parent"], "needs a conversion"),
        (["training.batch_size=3", "training.accumulation=2"], "no multiple of accumulation 2"),
        (
            ["conversion.method=prune", "conversion.ghost_op=depthwise"],
            "depthwise does not go with method prune",
        ),
        (["conversion.ghost_op=depthwise"], "depthwise does not go with method none"),
        (
            ["conversion.method=calibrated", "conversion.polish_steps=9"],
            "polish_steps: a polish needs calibration",
        ),
        (["conversion.calibration=a"], "calibration: does not go with method none"),
        (
            ["conversion.method=scratch", "conversion.polish_steps=0"],
            "polish_steps: does not go with method scratch",
        ),
        (
            [
                "model={init='a.pth'}",
                "distillation={teacher='parent', features=1.0}",
                "conversion.method=prune",
                "conversion.ghost_op=shift",
            ],
            "features: compares ghost layers",
        ),
        (
            [
                "model={init='a.pth'}",
                "distillation={teacher='parent', features=1.0}",
                "conversion.method=calibrated",
                "conversion.ghost_op=depthwise",
            ],
            "features: compares ghost layers",
        ),
        (["shifts.freeze_at=1.5"], "less than or equal to 1"),
        (["conversion.ghost_ratio=1"], "less than 1"),
        (["data.train=[]"], "at least 1 item"),
    ],
)
def test_values_that_contradict_each_other_or_are_out_of_range_are_refused(
    file, overrides, message
):
    with pytest.raises(InputError, match=message):
        read_config(file, overrides)


def test_the_schema_describes_every_table():
    schema = config_schema()

    assert set(schema["required"]) == {"model", "data"}
    assert {"training", "shifts", "distillation"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_a_run_may_go_on_with_other_workers_and_logs_but_not_with_another_rate(file):
    stored = read_config(file)

    check_same_run(stored, read_config(file, ["data.workers=2", "logging.every=7"]), "run")
    with pytest.raises(InputError, match=r"run: .*training\.lr was 0\.0001 and is 0\.01"):
        check_same_run(stored, read_config(file, ["training.lr=0.01"]), "run")


def test_values_need_no_file():
    config = config_from_values({}, "options", ["model.init=a.pth", 'data.train=["b"]'])

    assert str(config.model.init) == "a.pth"


def test_overrides_leave_the_values_as_they_are():
    values = {"model": {"init": "a.pth"}, "data": {"train": ["b"]}, "shifts": {"scope": "channel"}}

    changed = config_from_values(values, "test", ["shifts.scope=layer", "training.lr=1"])
    again = config_from_values(values, "test")

    assert (changed.shifts.scope, changed.training.lr) == ("layer", 1)
    assert (again.shifts.scope, again.training.lr) == ("channel", 1e-4)
    assert values["shifts"] == {"scope": "channel"}


def test_environment_variables_in_paths_are_put_in(file, monkeypatch):
    file.write_text(MINIMAL.replace('"pictures"', '"$GHOSTSR_DATA/T91", "${GHOSTSR_DATA}/BSD"'))
    monkeypatch.setenv("GHOSTSR_DATA", "/data")

    assert [str(path) for path in read_config(file).data.train] == ["/data/T91", "/data/BSD"]


def test_a_variable_that_is_not_set_is_named(file, monkeypatch):
    file.write_text(MINIMAL.replace('"pictures"', '"$GHOSTSR_DATA/T91"'))
    monkeypatch.delenv("GHOSTSR_DATA", raising=False)

    with pytest.raises(InputError, match="the environment variable GHOSTSR_DATA is not set"):
        read_config(file)


def test_later_files_are_put_over_earlier_ones_table_by_table(file, tmp_path):
    over = tmp_path / "over.toml"
    over.write_text("[training]\nlr = 2e-4\n[data]\npatch = 8\n")

    config = read_config(file, ["training.steps=7"], more=[over])

    assert (config.training.lr, config.training.steps) == (2e-4, 7)
    assert (config.data.patch, str(config.data.train[0])) == (8, "pictures")
