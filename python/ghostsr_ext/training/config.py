"""What a training run is made of, typed: every value has one place, one type and one default."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ghostsr_ext.conversion import Method
from ghostsr_ext.nn import MAX_SHIFT_LIMIT, ShiftEstimator, ShiftScope

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountFromZero = Annotated[int, Field(ge=0, le=10**9)]


def _expand_variables(value: Any) -> Any:
    """Put the values of environment variables into a path such as ``$GHOSTSR_DATA/Set5``."""
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value)
    expanded = os.path.expandvars(text)
    absent = re.search(r"\$\{?(\w+)", expanded)
    if absent is not None:
        raise ValueError(f"{text}: the environment variable {absent[1]} is not set")
    return expanded


FilePath = Annotated[Path, BeforeValidator(_expand_variables)]
"""A path in which environment variables may stand: ``$GHOSTSR_DATA/Set5``."""


class Section(BaseModel):
    """A table of the configuration file; it takes no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """The network: a new one by name, or one read from a file."""

    preset: str | None = Field(default=None, description="A network by name, with new weights.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the preset, such as scale and blocks."
    )
    init: FilePath | None = Field(
        default=None, description="A checkpoint to start from, dense or converted."
    )
    pretrained: FilePath | None = Field(
        default=None,
        description="A dense network, of another scale for instance; the new one takes "
        "its tensors of equal name and shape.",
    )
    fit_last: bool = Field(
        default=False,
        description="Whether the last convolution is fitted to the tensors of pretrained by least "
        "squares, on training patches; for networks that end in it and a pixel shuffle.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ModelConfig:
        if (self.preset is None) == (self.init is None):
            raise ValueError("give either preset (a network by name) or init (a checkpoint)")
        if self.init is not None and self.arguments:
            raise ValueError("arguments belong to preset; a checkpoint states its own")
        if self.init is not None and self.pretrained is not None:
            raise ValueError("pretrained belongs to preset; init takes every tensor of its file")
        if self.fit_last and self.pretrained is None:
            raise ValueError("fit_last belongs to pretrained, which gives the other layers")
        return self


class ConversionConfig(Section):
    """How the dense network becomes a GhostSR network before training."""

    method: Literal[Method, "none", "scratch"] = Field(
        default="none",
        description="kmeans is the paper's; filters chooses shifts too, without pictures; "
        "calibrated fits each layer on training pictures; scratch keeps no filter: new weights, "
        "ghosts of the first channels in their order; prune removes filters down to the same "
        "multiply-adds, for comparison.",
    )
    ghost_op: Literal["shift", "depthwise"] = Field(
        default="shift",
        description="depthwise puts GhostNet's operation in the place of shifts, at the same "
        "multiply-adds, for comparison.",
    )
    ghost_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="Part of a layer's outputs that is made by shifting."
    )
    max_shift: Annotated[int, Field(ge=0, le=MAX_SHIFT_LIMIT)] = Field(
        default=1, description="A ghost moves by at most this many rows and columns."
    )
    affine: bool = Field(
        default=False, description="Whether ghosts have a gain and a bias of their own."
    )
    layers: list[str] | None = Field(
        default=None,
        description="The convolutions to convert; by default those that the network declares.",
    )
    pictures: Count = Field(
        default=64,
        description="Training patches that the calibration looks at, where calibration names no "
        "folder.",
    )
    calibration: FilePath | None = Field(
        default=None,
        description="A folder of pictures that the conversion looks at in place of training "
        "patches, as ghostsr convert --calibration does.",
    )
    polish_steps: CountFromZero | None = Field(
        default=None,
        description="Steps of the polish that ends a conversion, towards the dense network's "
        "output; they need calibration. By default 60 end a calibrated one.",
    )

    @model_validator(mode="after")
    def _looks_at_pictures(self) -> ConversionConfig:
        if self.calibration is None and self.polish_steps:
            raise ValueError(
                "polish_steps: a polish needs calibration, a folder of pictures to cut crops from"
            )
        if self.method in ("none", "scratch"):
            for name in ("calibration", "polish_steps"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: does not go with method {self.method}")
        return self

    @model_validator(mode="after")
    def _makes_ghosts(self) -> ConversionConfig:
        if self.ghost_op != "shift" and self.method in ("none", "scratch", "prune"):
            raise ValueError(f"ghost_op: {self.ghost_op} does not go with method {self.method}")
        return self


class ShiftConfig(Section):
    """The paper's learnable shifts: Gumbel noise, temperature, straight-through, freezing."""

    mode: Literal["learned", "fixed"] = "learned"
    scope: ShiftScope = Field(
        default="channel", description="A shift for each ghost channel, or one for each layer."
    )
    init: Literal["conversion", "random"] = Field(
        default="conversion",
        description="Start from the shifts of the conversion, or from small noise.",
    )
    confidence: Positive = Field(
        default=3.0, description="Logit of a shift of the conversion; the other candidates have 0."
    )
    noise_until: Fraction = Field(
        default=1.0,
        description="Gumbel noise is added up to this part of all steps; 0 for no noise.",
    )
    exploration_rate: Fraction = Field(
        # Run folders of earlier versions call it so.
        validation_alias=AliasChoices("exploration_rate", "explored"),
        default=1.0,
        description="Part of the ghosts that noise is added to in a step; the others use their "
        "first choice.",
    )
    estimator: ShiftEstimator = Field(
        default="straight-through",
        description="Gradient of the logits: the paper's, or reinmax for the expected loss of "
        "the choice, which only ghosts that are explored get.",
    )
    tau_start: Positive = 1.0
    tau_end: Positive = 0.1
    tau_shape: Literal["exponential", "linear", "cosine", "constant"] = "exponential"
    freeze_at: Fraction = Field(
        default=0.5, description="When shifts become a table, as a part of all steps; 1 for never."
    )
    lr_factor: Positive = Field(
        default=1.0, description="Learning rate of the logits over training.lr."
    )
    reselect_every: Count | None = Field(
        default=None,
        description="Steps between attempts to give ghosts with fixed shifts other sources and "
        "shifts, by least squares and where the loss falls, up to freeze_at; none by default.",
    )

    @model_validator(mode="after")
    def _reselects_tables(self) -> ShiftConfig:
        if self.reselect_every is not None and (self.mode, self.scope) != ("fixed", "channel"):
            raise ValueError(
                f'reselect_every: goes with mode "fixed" and scope "channel"; found mode '
                f'"{self.mode}", scope "{self.scope}"'
            )
        return self


class DataConfig(Section):
    """Pictures to train on."""

    train: list[FilePath] = Field(min_length=1, description="Folders of pictures or sets with LR.")
    sizes: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[1.0],
        min_length=1,
        description="Sizes at which each picture is used, as parts of its own: with 0.5 it also "
        "serves reduced to half, where its detail is finer.",
    )
    patch: Count = Field(default=48, description="Side of a patch in pixels of the small picture.")
    augment: bool = Field(default=True, description="Eight-fold flips and quarter turns.")
    recolor: bool = Field(
        default=False,
        description="Two thirds of the patches get their color channels in a random order, half of "
        "those as negatives; for few pictures, which have few colors.",
    )
    sampling: Literal["uniform", "area"] = Field(
        default="uniform", description="Every picture as likely as any other, or by its area."
    )
    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        description="Positions that are drawn in a picture for each patch, of which the patch of "
        "most detail is taken; above 1 for photographs with much sky and blur.",
    )
    workers: CountFromZero = Field(default=0, description="Processes that cut patches.")
    cache: FilePath | None = Field(
        default=None, description="Folder of decoded pictures; by default the user's cache folder."
    )
    on_unreadable: Literal["fail", "skip"] = Field(
        default="fail", description="What a broken or too small picture does."
    )


class ValidationConfig(Section):
    """Sets to measure on while training."""

    sets: list[FilePath] = Field(
        default_factory=list, description="The first one decides the best."
    )
    every: Count = Field(default=1000, description="Steps between measurements.")


class LossConfig(Section):
    """The distance between the network's output and the original, both in 0..1."""

    kind: Literal["l1", "charbonnier", "l2"] = "l1"
    charbonnier_epsilon: Positive = 1e-3


class DistillationConfig(Section):
    """Learning from a dense network as well as from the originals."""

    teacher: FilePath | Literal["parent"] | None = Field(
        default=None, description="A checkpoint, or parent: the network before its conversion."
    )
    output: NotNegative = Field(
        default=1.0, description="Weight of the distance between the outputs."
    )
    features: NotNegative = Field(
        default=0.0, description="Weight of the distance between the outputs of converted layers."
    )
    target: NotNegative = Field(
        default=1.0, description="Weight of the loss against the originals."
    )


class TrainingConfig(Section):
    """The optimisation."""

    steps: Count = 300_000
    batch_size: Count = Field(default=16, description="Patches in a step, over all processes.")
    accumulation: Count = Field(default=1, description="Parts in which a process takes its share.")
    optimizer: Literal["adam", "adamw", "muon", "eigenbasis"] = Field(
        default="adam",
        description="muon orthogonalises the steps of convolutions, at Adam's learning rate; "
        "eigenbasis is Adam in the eigenbasis of each layer's inputs, where training.lr is the "
        "relative change of a layer's output in a step.",
    )
    lr: Positive = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    clip_gradient: Positive | None = Field(
        default=None, description="Largest norm of the gradient."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Decay of the averaged weights, which are validated and exported."
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:1.")
    threads: CountFromZero = Field(default=0, description="CPU threads; 0: torch's choice.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    divergence: Annotated[float, Field(gt=1)] = Field(
        default=10.0, description="Stop when the mean loss is this many times its lowest."
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainingConfig:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size: {self.batch_size} is no multiple of accumulation {self.accumulation}"
            )
        return self


class ScheduleConfig(Section):
    """The learning rate over the steps."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    warmup: CountFromZero = Field(default=0, description="Steps of linear increase.")
    final: Fraction = Field(default=0.0, description="cosine: last learning rate over the first.")
    milestones: list[Count] = Field(
        default_factory=list, description="step: where the rate is multiplied by gamma."
    )
    gamma: Positive = 0.5


class CheckpointConfig(Section):
    """What is kept: to go on from, and as the product."""

    every: Count = Field(default=1000, description="Steps between checkpoints.")
    keep: Count = Field(default=3, description="Checkpoints to keep.")
    network_dtype: Literal["fp32", "fp16"] = Field(
        default="fp32", description="Type of the weights in best and final.safetensors."
    )


class LoggingConfig(Section):
    """What is written down."""

    every: Count = Field(default=100, description="Steps between entries of the log.")
    tensorboard: bool = Field(default=False, description="Needs the extra ghostsr[tensorboard].")


class Config(Section):
    """A training run."""

    model: ModelConfig
    data: DataConfig
    conversion: ConversionConfig = ConversionConfig()
    shifts: ShiftConfig = ShiftConfig()
    validation: ValidationConfig = ValidationConfig()
    loss: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()
    training: TrainingConfig = TrainingConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _parent_exists(self) -> Config:
        if self.distillation.teacher == "parent" and self.conversion.method in ("none", "scratch"):
            raise ValueError(
                'distillation.teacher: "parent" needs a conversion of a trained network'
            )
        return self

    @model_validator(mode="after")
    def _features_are_of_ghosts(self) -> Config:
        ghosts = self.conversion.method != "prune" and self.conversion.ghost_op == "shift"
        if self.distillation.teacher is not None and self.distillation.features and not ghosts:
            raise ValueError(
                "distillation.features: compares ghost layers, which conversion.method prune and "
                "conversion.ghost_op depthwise leave none of"
            )
        return self
