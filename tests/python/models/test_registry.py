import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import (
    EDSR,
    SRModel,
    create_model,
    model_from_config,
    preset_names,
    register_model,
    registry,
)
from ghostsr_ext.models.layers import same_conv
from torch import Tensor, nn


class Mine(SRModel):
    architecture = "mine"

    def __init__(self, *, scale: int = 2, features: int = 4) -> None:
        super().__init__(
            config={"scale": scale, "features": features}, scales=(scale,), value_range=1.0
        )
        self.conv = same_conv(3, 3 * scale**2, 3)
        self.shuffle = nn.PixelShuffle(scale)

    def upscale(self, image: Tensor, scale: int) -> Tensor:
        return self.shuffle(self.conv(image))


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_presets", dict(registry._presets))
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))


def test_presets_of_the_paper_are_known() -> None:
    assert {"edsr", "edsr_baseline", "rdn", "carn", "carn_m", "vdsr"} <= set(preset_names())


def test_overrides_replace_what_a_preset_sets() -> None:
    model = create_model("edsr_baseline", scale=3, blocks=2)
    assert isinstance(model, EDSR)
    assert model.config["blocks"] == 2
    assert model.config["features"] == 64
    assert model.scales == (3,)


def test_a_network_of_ones_own_can_join() -> None:
    register_model("mine_small", Mine, features=2)
    model = create_model("mine_small", scale=3)
    assert isinstance(model, Mine)
    assert isinstance(model_from_config(model.config), Mine)


def test_registering_the_same_twice_is_harmless() -> None:
    register_model("mine", Mine)
    register_model("mine", Mine)
    assert preset_names().count("mine") == 1


def test_a_taken_preset_name_is_refused() -> None:
    with pytest.raises(InputError, match="preset 'edsr': is registered already"):
        register_model("edsr", Mine)
    assert isinstance(create_model("edsr", blocks=1, features=4), EDSR)


def test_a_taken_architecture_name_is_refused() -> None:
    class Other(Mine):
        architecture = "edsr"

    with pytest.raises(InputError, match="architecture 'edsr': already names EDSR"):
        register_model("other", Other)


def test_a_class_that_is_no_sr_model_is_refused() -> None:
    with pytest.raises(InputError, match="subclasses of SRModel"):
        register_model("plain", nn.Conv2d)  # type: ignore[arg-type]


def test_a_class_without_architecture_name_is_refused() -> None:
    class Nameless(Mine):
        architecture = ""

    with pytest.raises(InputError, match="Nameless sets no class attribute 'architecture'"):
        register_model("nameless", Nameless)


@pytest.mark.parametrize(
    ("wrong", "right"), [("edrs", "edsr"), ("carn-m", "carn_m"), ("EDSR_baseline", "edsr_baseline")]
)
def test_an_unknown_preset_is_met_with_the_nearest_right_one(wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{right}'"):
        create_model(wrong)


def test_an_unknown_keyword_is_met_with_the_nearest_right_one() -> None:
    with pytest.raises(InputError, match="EDSR argument 'block': unknown; did you mean 'blocks'"):
        create_model("edsr", block=3)


def test_an_unknown_architecture_is_met_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"architecture 'edsrr': unknown; did you mean 'edsr'"):
        model_from_config({"architecture": "edsrr"})


def test_a_hyperparameter_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(InputError, match="blocks"):
        model_from_config({"architecture": "edsr", "blocks": "many"})
    with pytest.raises(InputError, match="scale"):
        model_from_config({"architecture": "carn", "scale": None})
