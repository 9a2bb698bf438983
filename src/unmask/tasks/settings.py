"""How to fine-tune. No torch here: the command line reads these types to print its help."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from unmask.errors import UserError
from unmask.training.schedules import ScheduleName
from unmask.training.settings import LoopSettings, OptimiserName, Precision

#: How an ELECTRA writes: by filling masks, or with a decoder that starts from it.
ElectraWriting = Literal["masks", "encoder-decoder"]
#: Which of several seeds' models is kept.
Keep = Literal["best", "median"]

#: Training sets with fewer rows are small: 10 epochs (ELECTRA paper, appendix B: RTE and STS), else 3.
SMALL = 6000
#: ELECTRA's widths up to which a size reaches, with the learning rate and the layer-wise decay of fine-tuning it
#: (ELECTRA paper, table 7: small, base, large; at 128, the best of four on three kinds of task, docs/results.md).
_ELECTRA = ((128, 3e-3, 1.0), (256, 3e-4, 0.8), (768, 1e-4, 0.8), (1 << 30, 5e-5, 0.9))
#: T5's widths up to which a size reaches, with its rate relative to each tensor's size. The published one (T5 paper,
#: 3.1.3) is for 512 and more; at 128, 3e-2 is the best of five on three kinds of task, at 384, 1e-2 the best of three
#: on one (docs/results.md).
_T5 = ((128, 3e-2), (384, 1e-2))
#: Where a width is beyond these, where the rate is not relative, and for LoRA.
_RATE = 1e-3
#: Optimisers whose steps are relative to each tensor's size.
_RELATIVE = ("adafactor", "scaled-adamw")
#: Checkpoints of a run whose settings name no distance between them.
CHECKPOINTS = 10


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Settings of a fine-tuning run. What is not given is as published for the model's family and size
    (docs/finetuning.md).

    Attributes:
        epochs: passes over the training rows; default: 3, or 10 where there are fewer than 6,000.
        batch_size: rows a step.
        optimiser: adamw, scaled-adamw (steps relative to each tensor's size), electra-adam (no bias
            correction), adafactor (T5's), or muon (experimental: for the layers' matrices, adamw for the rest);
            default: adafactor for T5, adamw for ELECTRA and for LoRA.
        learning_rate: the schedule's peak; default: 1e-3 for T5, of widths below 512 up to 3e-2; 3e-3, 3e-4, 1e-4
            and 5e-5 for ELECTRA up to a width of 128, small, base and large; 1e-3 for LoRA.
        layer_decay: (ELECTRA) factor of the learning rate from each layer to the one below it; 1: none; default:
            1 up to a width of 128, 0.8 for small and base, 0.9 for large, 1 for LoRA, for a writer and from scratch.
        schedule: constant, linear, cosine, wsd, inverse-square-root or electra; default: constant with adafactor,
            else linear.
        warmup_share: share of the steps until the peak; default: none with adafactor, else 0.1.
        weight_decay: decoupled; norms and biases are spared.
        clip_norm: largest gradient norm; 0: no clipping.
        label_smoothing: share of a target's probability that is spread over all labels or tokens.
        class_weights: balanced weighs each label by the inverse of its frequency, so that rare ones count as much.
        lora_rank: train so many dimensions of a low-rank adaptation of each target instead of all weights, and write
            it as an adapter; 0: train all weights.
        lora_alpha: the adaptation is scaled by alpha / rank; default: twice the rank.
        lora_dropout: on the input of the adaptation.
        lora_targets: layers to adapt: query, key, value, output (attention_output), gate, up, down, or all.
        precision: float32, bfloat16 (matrix products in it, over float32 weights), or auto: the faster here.
        seed: decides order, dropout and the new head.
        evaluate_every: steps between evaluations on the validation rows, the best of which decides which weights are
            kept; default: an epoch; 0: none, the last weights are kept.
        evaluation_rows: the most validation rows of an evaluation, at equal distances; 0: all.
        patience: evaluations without a better score after which the run ends; 0: it runs to its end.
        checkpoint_every: steps between checkpoints; default: a tenth of the run; 0: none, the run starts again when
            it is stopped.
        electra_writes_by: (ELECTRA, text-to-text) masks: a generator fills them and a discriminator judges;
            encoder-decoder: a decoder that starts from the same weights writes from left to right.
    """

    epochs: float | None = None
    batch_size: int = 32
    optimiser: OptimiserName | None = None
    learning_rate: float | None = None
    layer_decay: float | None = None
    schedule: ScheduleName | None = None
    warmup_share: float | None = None
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    lora_rank: int = 0
    lora_alpha: float | None = None
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ("query", "value")
    precision: Precision = "auto"
    seed: int = 0
    evaluate_every: int | None = None
    evaluation_rows: int = 1000
    patience: int = 3
    checkpoint_every: int | None = None
    electra_writes_by: ElectraWriting = "masks"

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} is {value}, it must be above 0")
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}, it must be at least 1")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay is {self.layer_decay}, it must be above 0 and at most 1")
        if self.warmup_share is not None and not 0 <= self.warmup_share <= 1:
            raise UserError(f"warmup_share is {self.warmup_share}, it must be between 0 and 1")
        for name in ("label_smoothing", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least 0 and below 1")
        for name in (
            *("weight_decay", "clip_norm", "lora_rank", "evaluation_rows"),
            *("evaluate_every", "patience", "checkpoint_every"),
        ):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, it must not be negative")
        object.__setattr__(self, "lora_targets", tuple(self.lora_targets))

    def with_defaults(
        self, family: str, width: int, rows: int, *, writer: bool = False, fresh_weights: bool = False
    ) -> FinetuneSettings:
        """These settings with a value for each that has none.

        Args:
            family: "t5" or "electra".
            width: of the model's layers.
            rows: to train on.
            writer: an ELECTRA that learns to write.
            fresh_weights: the model begins from drawn weights.
        """
        t5, lora = family == "t5", self.lora_rank > 0
        _, rate, decay = next(size for size in _ELECTRA if width <= size[0])
        plain = t5 or lora or writer or fresh_weights
        optimiser = self.optimiser or ("adafactor" if t5 and not lora else "adamw")
        if lora or (t5 and optimiser not in _RELATIVE):
            rate = _RATE
        elif t5:
            rate = next((rate for size, rate in _T5 if width <= size), _RATE)
        defaults: dict[str, Any] = {
            "epochs": 10.0 if rows < SMALL else 3.0,
            "optimiser": optimiser,
            "learning_rate": rate,
            "layer_decay": 1.0 if plain else decay,
            "lora_alpha": 2.0 * max(1, self.lora_rank),
        }
        adafactor = optimiser == "adafactor"
        defaults |= {
            "schedule": "constant" if adafactor else "linear",
            "warmup_share": 0.0 if adafactor else 0.1,
        }
        return replace(
            self, **{name: value for name, value in defaults.items() if getattr(self, name) is None}
        )

    def loop_settings(self, steps: int, per_epoch: float, judge: str | None = None) -> LoopSettings:
        """What the loop reads, for settings that have all values.

        Args:
            steps: of the run.
            per_epoch: steps that an epoch takes.
            judge: see `LoopSettings`.
        """
        assert self.optimiser and self.learning_rate and self.schedule
        assert self.layer_decay is not None
        assert self.warmup_share is not None
        evaluate_every = max(1, round(per_epoch)) if self.evaluate_every is None else self.evaluate_every
        return LoopSettings(
            steps=steps,
            seed=self.seed,
            optimiser=self.optimiser,
            learning_rate=self.learning_rate,
            layer_decay=self.layer_decay,
            schedule=self.schedule,
            warmup_steps=round(self.warmup_share * steps),
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            precision=self.precision,
            evaluate_every=0 if judge is None else evaluate_every,
            judge=judge,
            patience=self.patience,
            checkpoint_every=max(1, steps // CHECKPOINTS)
            if self.checkpoint_every is None
            else self.checkpoint_every,
            keep_checkpoints=1,
        )


@dataclass(frozen=True, kw_only=True)
class DistilSettings:
    """Settings of distillation, beside those of fine-tuning.

    Attributes:
        temperature: (ELECTRA) teacher and student are compared at: above 1, unlikely labels count more.
        soft_share: (ELECTRA) weight of the teacher's answers; the rest is that of the true ones.
        num_beams: (T5) beams of the teacher's search.
    """

    temperature: float = 2.0
    soft_share: float = 0.9
    num_beams: int = 4

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}, it must be above 0")
        if not 0 <= self.soft_share <= 1:
            raise UserError(f"soft_share is {self.soft_share}, it must be between 0 and 1")
        if self.num_beams < 1:
            raise UserError(f"num_beams is {self.num_beams}, it must be at least 1")
