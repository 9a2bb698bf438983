"""What a pre-training run is made of: one table of settings, in TOML or as flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from unmask import hub
from unmask.data.mixtures import rates_by_size
from unmask.data.packing import check_size
from unmask.errors import UserError
from unmask.objectives.text_to_text import T5Objective, sentinels_needed
from unmask.settings import from_table, nearest, read_toml
from unmask.training.schedules import ScheduleName, check_schedule
from unmask.training.settings import LoopSettings, OptimiserName, Precision

Family = Literal["t5", "electra"]
#: Where a run keeps its settings, the recipe among them.
RUN = "run.json"

#: Settings that mean something for one family alone.
FAMILY_FIELDS: dict[str, tuple[str, ...]] = {
    "t5": ("decoder_layers", "head_width", "feed_forward", "noise_density", "mean_span_length"),
    "electra": (
        "embedding_width",
        "initializer_range",
        "generator_share",
        "generator",
        "freeze_generator",
        "embedding_sharing",
        "mask_rate",
        "final_mask_rate",
        "temperature",
        "final_temperature",
        "discriminator_weight",
        "lowercase",
    ),
}

ElectraObjective = Literal["replaced-tokens", "masked-lm", "all-tokens", "electric", "masked-diffusion"]
Objective = Literal[T5Objective, ElectraObjective]
#: The objectives of each family, its default first.
OBJECTIVES: dict[Family, tuple[str, ...]] = {
    "t5": get_args(T5Objective),
    "electra": get_args(ElectraObjective),
}
#: Settings that mean nothing to an objective.
IDLE_FIELDS: dict[Objective, tuple[str, ...]] = {
    "span-corruption": (),
    "iid-spans": ("mean_span_length",),
    "iid-dropped": ("mean_span_length",),
    "bert-style": ("mean_span_length",),
    "mass-style": ("mean_span_length",),
    "prefix-lm": ("mean_span_length",),
    "deshuffling": ("noise_density", "mean_span_length"),
    "causal-lm": ("noise_density", "mean_span_length"),
    "ul2": ("noise_density", "mean_span_length"),
    "replaced-tokens": (),
    "masked-lm": (
        "generator_share",
        "generator",
        "freeze_generator",
        "embedding_sharing",
        "temperature",
        "final_temperature",
        "discriminator_weight",
    ),
    "all-tokens": ("generator", "freeze_generator", "start_from"),
    "electric": (
        "generator",
        "freeze_generator",
        "embedding_sharing",
        "tied",
        "temperature",
        "final_temperature",
        "final_mask_rate",
        "start_from",
    ),
    "masked-diffusion": ("mask_rate", "final_mask_rate"),
}


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Settings of a pre-training run.

    Attributes:
        family: "t5" or "electra".
        vocab_size: pieces of the tokenizer that is trained where none is given (T5 adds 100 sentinels).
        layers: encoder layers.
        width: width of the residual stream.
        heads: attention heads.
        feed_forward_width: inner width of the feed-forward.
        dropout: dropout probability in pre-training.
        length: most tokens of an example: of T5's input, of ELECTRA's whole sequence.
        batch_size: examples a step; exclusive with batch_tokens.
        batch_tokens: most tokens a step, counted before corruption: as many examples as fit.
        initial_batch_size: examples of the first step, from which batches grow in a straight line; default: batch_size.
        batch_warmup_steps: steps until batch_size is reached.
        validation_share: share of documents held out, chosen by their hash.
        mixture: rate of each corpus by name, where several are given, as a flag --mixture.NAME RATE; default: by
            their sizes in tokens.
        mixture_temperature: of rates by size, size ** (1 / temperature); default: 1.
        mixture_cap: of rates by size, the size in tokens that a corpus counts as at most; default: none.
        start_from: a checkpoint, by directory or Hub name, whose weights the run begins with, under a schedule of its
            own: a T5, an ELECTRA pair, or a discriminator alone, which gets a fresh generator. It decides the
            model's shape; another vocabulary and longer texts than its own are fitted. Default: none, drawn afresh.
        steps: optimiser steps.
        seed: decides weights, order, corruption and dropout.
        optimiser: adamw, scaled-adamw (steps relative to each tensor's size), electra-adam (no bias
            correction), adafactor (T5's), or muon (experimental: for the layers' matrices, adamw for the rest).
        learning_rate: the schedule's peak.
        schedule: constant, linear, cosine, wsd, inverse-square-root or electra.
        warmup_steps: steps until the peak.
        decay_share: of wsd, the share of the steps that decay; default: 0.1.
        final_factor: of linear, cosine and wsd, what is left of the peak at the end; default: 0.
        weight_decay: decoupled; norms and biases are spared.
        clip_norm: largest gradient norm; 0: no clipping.
        precision: float32, bfloat16 (matrix products in it, over float32 weights), or auto: the faster here.
        ema_decay: of a moving average of the weights (0.999, say), which is what is evaluated and what the run
            ends with; 0: none.
        average_checkpoints: the run ends with the mean of the weights of so many of its newest checkpoints; 0: with
            its last weights.
        max_skipped: steps in a row without a finite loss and gradient, which are skipped, until the run stops.
        checkpoint_every: steps between checkpoints; 0: none.
        keep_checkpoints: how many of the newest to keep.
        keep_every: checkpoints at multiples of so many steps are kept too; 0: none.
        evaluate_every: steps between held-out evaluations; 0: at the beginning and the end only.
        log_every: steps between log lines.
        decoder_layers: (T5) decoder layers; default: as many as the encoder has.
        head_width: (T5) width of a head; default: width / heads.
        feed_forward: (T5) "relu" (v1.0) or "gated-gelu" (v1.1); default: gated-gelu.
        tied: the output matrix is the embedding, T5's as in v1.0, ELECTRA's generator's as published; default:
            false for T5, true for ELECTRA.
        objective: what is learnt. T5: "span-corruption"; "ul2" (a mixture of seven denoisers); "prefix-lm",
            "causal-lm" (the text continued, or all of it written); and what the T5 paper compared: "bert-style",
            "mass-style", "deshuffling", "iid-spans", "iid-dropped"; default: span-corruption. ELECTRA:
            "replaced-tokens", or a baseline of the same size: "masked-lm", or "all-tokens" (masked LM that
            predicts every token and may copy its input), or "electric" (energies that score texts), or
            "masked-diffusion" (a pair that writes); default: replaced-tokens.
        noise_density: (T5) share of tokens that is noise, in prefix-lm the target's mean share of the text; default:
            0.15, in prefix-lm 0.5.
        mean_span_length: (T5, span-corruption) mean tokens of a span; default: 3.
        embedding_width: (ELECTRA) width of the embeddings; default: width.
        initializer_range: (ELECTRA) standard deviation of the weights that are drawn; default: 0.02, as published
            for widths of 256 and more.
        generator_share: (ELECTRA) generator's width, heads and feed-forward as a share; default: 0.25, for
            masked-diffusion, where it is the generator that writes, 1.
        generator: (ELECTRA) a masked LM, or a pair, by directory or Hub name, whose weights the generator starts
            with; it needs the same vocabulary. Default: none, drawn afresh.
        freeze_generator: (ELECTRA) do not train the generator that is given (Fast-ELECTRA); default: false.
        embedding_sharing: (ELECTRA) "shared" between the halves, "disentangled" (DeBERTaV3: no gradient from the
            discriminator to the generator's, which it adds a residual to) or "separate"; default: shared,
            separate with a frozen generator.
        mask_rate: (ELECTRA) share of positions drawn; default: 0.15.
        final_mask_rate: (ELECTRA) the rate moves there in a straight line over the run; default: it stays.
        temperature: (ELECTRA) of the generator's sampling; default: 1.
        final_temperature: (ELECTRA) it moves there in a straight line over the run; default: it stays.
        discriminator_weight: (ELECTRA) weight of the discriminator's loss, or of the loss over all tokens, beside
            the generator's; default: 50, for all-tokens 1, for masked-diffusion 5.
        lowercase: (ELECTRA) the tokenizer that is trained ignores case and accents; default: true.
    """

    family: Family
    vocab_size: int
    layers: int
    width: int
    heads: int
    feed_forward_width: int
    dropout: float = 0.0
    length: int
    batch_size: int | None = None
    batch_tokens: int | None = None
    initial_batch_size: int | None = None
    batch_warmup_steps: int = 0
    validation_share: float = 0.01
    mixture: dict[str, float] | None = None
    mixture_temperature: float | None = None
    mixture_cap: int | None = None
    start_from: str | None = None
    steps: int
    seed: int = 0
    optimiser: OptimiserName = "adamw"
    learning_rate: float
    schedule: ScheduleName = "linear"
    warmup_steps: int = 0
    decay_share: float | None = None
    final_factor: float | None = None
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Precision = "auto"
    ema_decay: float = 0.0
    average_checkpoints: int = 0
    max_skipped: int = 10
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    keep_every: int = 0
    evaluate_every: int = 0
    log_every: int = 10
    decoder_layers: int | None = None
    head_width: int | None = None
    feed_forward: Literal["relu", "gated-gelu"] | None = None
    tied: bool | None = None
    objective: Objective | None = None
    noise_density: float | None = None
    mean_span_length: float | None = None
    embedding_width: int | None = None
    initializer_range: float | None = None
    generator_share: float | None = None
    generator: str | None = None
    freeze_generator: bool | None = None
    embedding_sharing: Literal["shared", "disentangled", "separate"] | None = None
    mask_rate: float | None = None
    final_mask_rate: float | None = None
    temperature: float | None = None
    final_temperature: float | None = None
    discriminator_weight: float | None = None
    lowercase: bool | None = None

    def __post_init__(self) -> None:
        for family, names in FAMILY_FIELDS.items():
            for name in names:
                if family != self.family and getattr(self, name) is not None:
                    raise UserError(f"{name} is a setting of {family}, this recipe's family is {self.family}")
        for name in ("vocab_size", "layers", "width", "heads", "length", "steps", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least 1")
        check_size(self.batch_size, self.batch_tokens)
        self._check_growth()
        for name in (
            "checkpoint_every",
            "keep_every",
            "evaluate_every",
            "warmup_steps",
            "weight_decay",
            "clip_norm",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, it must not be negative")
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate is {self.learning_rate}, it must be above 0")
        for name in ("keep_checkpoints", "max_skipped"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}, it must be at least 0 and below 1")
        self._check_average()
        check_schedule(self.schedule, decay_share=self.decay_share, final_factor=self.final_factor)
        for name in ("dropout", "noise_density", "mask_rate", "final_mask_rate", "validation_share"):
            value = getattr(self, name)
            if value is not None and not (0 <= value < 1 and (value > 0 or name == "dropout")):
                raise UserError(f"{name} is {value}, it must be a share between 0 and 1")
        if self.head_width is None and self.width % self.heads:
            raise UserError(f"width {self.width} is not a multiple of heads {self.heads}")
        self._check_objective()
        self._check_mixture()
        if self.family == "electra":
            self._check_electra()

    def _check_average(self) -> None:
        count = self.average_checkpoints
        if count < 0 or (
            count and (self.ema_decay or not self.checkpoint_every or self.keep_checkpoints < count)
        ):
            raise UserError(
                f"average_checkpoints is {count}: it needs checkpoint_every, keep_checkpoints of as many or more, "
                "and no ema_decay"
            )

    def _check_growth(self) -> None:
        first, steps = self.initial_batch_size, self.batch_warmup_steps
        if (first is None) != (steps == 0) or steps < 0:
            raise UserError(
                f"initial_batch_size is {first} and batch_warmup_steps is {steps}: give both, or leave both out"
            )
        if first is not None and (self.batch_size is None or not 1 <= first <= self.batch_size):
            raise UserError(
                f"initial_batch_size is {first}: it must be at least 1 and at most batch_size, which is "
                f"{self.batch_size}"
            )

    def _check_objective(self) -> None:
        objective, own = self.chosen_objective, OBJECTIVES[self.family]
        if objective not in own:
            raise UserError(
                f"objective {objective!r} is not one of {self.family}, which has {', '.join(own)}"
            )
        for name in IDLE_FIELDS[objective]:
            if getattr(self, name) is not None:
                raise UserError(f"{name} means nothing to the objective {objective!r}: leave it out")
        if self.family == "t5":
            self.sentinels_needed()

    def _check_mixture(self) -> None:
        for name, rate in (self.mixture or {}).items():
            if not 0 < rate < float("inf"):
                raise UserError(f"mixture: the rate of {name!r} is {rate}, it must be above 0")
        for name in ("mixture_temperature", "mixture_cap"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.mixture is not None:
                raise UserError(f"{name} is of rates by size: leave it out, or leave out mixture")
            if not 0 < value < float("inf"):
                raise UserError(f"{name} is {value}, it must be above 0")

    def _check_electra(self) -> None:
        for name in ("initializer_range", "temperature", "final_temperature", "discriminator_weight"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} is {value}, it must be above 0")
        if self.freeze_generator and self.generator is None:
            raise UserError("freeze_generator needs a trained one: name it with generator")
        if self.freeze_generator and self.embedding_sharing == "shared":
            raise UserError(
                "embedding_sharing 'shared' with a frozen generator would let the discriminator train its "
                "embeddings: choose 'separate' or 'disentangled'"
            )
        if self.generator is not None and self.generator_share is not None:
            raise UserError(
                "generator_share is of a generator drawn afresh: leave it out, or leave out generator"
            )

    def chosen(self, name: str, default: Any) -> Any:
        """A family's setting, or its default where the recipe leaves it open."""
        value = getattr(self, name)
        return default if value is None else value

    @property
    def chosen_objective(self) -> Objective:
        """The objective, the family's default filled in."""
        return self.objective or ("span-corruption" if self.family == "t5" else "replaced-tokens")

    @property
    def t5_objective(self) -> T5Objective:
        return cast(T5Objective, self.chosen_objective)

    @property
    def electra_objective(self) -> ElectraObjective:
        return cast(ElectraObjective, self.chosen_objective)

    def noise_settings(self) -> dict[str, float]:
        """What the recipe says of T5's noise, as `objectives.text_to_text` calls it."""
        said = {"density": self.noise_density, "mean_span": self.mean_span_length}
        return {name: value for name, value in said.items() if value is not None}

    def sentinels_needed(self) -> int:
        """How many sentinels T5's objective needs.

        Raises:
            UserError: settings that mean nothing to it.
        """
        return sentinels_needed(self.t5_objective, self.length, **self.noise_settings())

    def mixture_rates(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The rates of named corpora, in the order of `sizes`.

        Args:
            sizes: name → tokens to train on.

        Raises:
            UserError: `mixture` names others than these, or one of them is empty.
        """
        if self.mixture is None:
            return rates_by_size(
                sizes, temperature=self.chosen("mixture_temperature", 1.0), cap=self.mixture_cap
            )
        for name in self.mixture:
            if name not in sizes:
                raise UserError(f"mixture: no corpus is named {name!r}{nearest(name, sizes)}")
        for name, size in sizes.items():
            if name not in self.mixture:
                raise UserError(f"mixture: the corpus {name!r} has no rate")
            if not size:
                raise UserError(f"the corpus {name!r} is empty: leave it out of the mixture")
        return {name: self.mixture[name] for name in sizes}

    def check_single(self) -> None:
        """Raises:
        UserError: settings of a mixture, where the data is one corpus without a name.
        """
        for name in ("mixture", "mixture_temperature", "mixture_cap"):
            if getattr(self, name) is not None:
                raise UserError(
                    f"{name} is of several corpora: give them as --data NAME=DIR NAME=DIR, or leave it out"
                )

    def loop_settings(self) -> LoopSettings:
        """The part of the recipe that the loop reads."""
        names = {field.name for field in dataclasses.fields(LoopSettings)}
        return LoopSettings(**{name: value for name, value in self.as_table().items() if name in names})

    def as_table(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, name_or_path: str, overrides: dict[str, Any] | None = None) -> Self:
        """A shipped recipe by name, a TOML file by path or a run's by its directory, with some settings replaced.

        Replacing the objective also leaves out those of the file's settings that mean nothing to the new one; one size
        of a batch takes the place of the other.

        Raises:
            UserError: no such recipe, a misspelt key, a wrong value.
        """
        table, where = read_recipe(name_or_path)
        overrides = overrides or {}
        idle = IDLE_FIELDS.get(overrides.get("objective", ""), ())
        sizes = {"batch_size", "batch_tokens"}
        left_out = {*idle, *(sizes if sizes & overrides.keys() else ())}
        kept = {name: value for name, value in table.items() if name not in left_out}
        return from_table(cls, kept | overrides, where)


def shipped_recipes() -> dict[str, Path]:
    """The recipes in the package: name → file."""
    folder = Path(str(resources.files("unmask") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name_or_path: str) -> tuple[dict[str, Any], str]:
    """The table of a recipe and the name to call it by in errors."""
    path = Path(name_or_path)
    if (path / RUN).is_file():
        table = hub.read_json(path / RUN).get("recipe")
        if not isinstance(table, dict):
            raise UserError(f"{path / RUN} has no recipe: it is of no pre-training")
        return {name: value for name, value in table.items() if value is not None}, str(path / RUN)
    if path.suffix == ".toml" or path.is_file():
        return read_toml(path), str(path)
    shipped = shipped_recipes()
    if name_or_path not in shipped:
        raise UserError(
            f"no recipe {name_or_path!r}: neither a TOML file nor a run nor shipped{nearest(name_or_path, shipped)}"
        )
    return read_toml(shipped[name_or_path]), f"recipe {name_or_path}"
