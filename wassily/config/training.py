"""The flags of `train` and `plan`: frozen dataclasses, checked when made. Imports nothing heavy.

A field's docstring is the help text of its flag. The flags, their names and their defaults are
those of the Kandinsky 2.2 training guide; what is new here says so by being absent there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from wassily.config import source_checks, training_checks
from wassily.config.schema import About, at_least, check_types, require

Precision = Literal["no", "fp16", "bf16"]
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
]
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "lion"]
Tracker = Literal["tensorboard", "wandb", "comet_ml", "trackio", "mlflow", "all", "none"]
Metric = Literal["loss", "learned", "kept", "both"]
Preset = Literal["8gb", "12gb", "16gb", "24gb", "80gb"]
TRACKER_PACKAGES = ("tensorboard", "wandb", "comet_ml", "trackio", "mlflow")

PRIOR = "kandinsky-community/kandinsky-2-2-prior"
DECODER = "kandinsky-community/kandinsky-2-2-decoder"
REMARKED = About(remarked=True)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What both trainings share."""

    needs_pictures: ClassVar[bool] = True

    pretrained_decoder_model_name_or_path: str = DECODER
    """Decoder to start from: a hub name, a local pipeline folder, or mini."""
    pretrained_prior_model_name_or_path: str = PRIOR
    """Prior to start from; its text and image encoders serve both networks."""

    train_data_dir: str | None = None
    """Folder of pictures, with metadata.jsonl or metadata.csv, or a .txt beside each picture."""
    dataset_name: str | None = None
    """Data set on the hub, or a local folder with a saved data set or parquet files."""
    dataset_config_name: str | None = None
    """Configuration of that data set, if it has several."""
    streaming: bool = False
    """Read that data set's shards (parquet, WebDataset) while training: for what does not fit the
    disk. It is encoded at every step; --max_train_steps is needed."""
    shuffle_buffer: int = 1000
    """With --streaming: examples that are held in memory and shuffled."""
    instance_data_dir: str | None = None
    """DreamBooth: folder of a few pictures of one thing, without captions."""
    instance_prompt: Annotated[str | None, About("caption of all pictures")] = None
    """The caption of all of them, such as "a photo of sks dog"; the decoder needs none."""
    with_prior_preservation: bool = False
    """Train on pictures of the thing's class beside the own ones, so that the class is kept."""
    class_data_dir: str | None = None
    """Folder of those; what is missing in it is drawn by the model that the training starts from,
    before the first step."""
    class_prompt: str | None = None
    """Their caption, such as "a photo of a dog"; they are drawn from it."""
    num_class_images: int = 100
    """How many of them there are to be."""
    prior_loss_weight: float = 1.0
    """What the mean loss on them counts, against 1 for that on the own pictures."""
    sample_batch_size: int = 4
    """How many of them are drawn at once."""
    image_column: str = "image"
    """Column that holds the pictures."""
    caption_column: str = "text"
    """Column that holds the captions, each a text or a list of texts of which one is drawn; the
    decoder reads them with --drawn_embeds only."""
    max_train_samples: int | None = None
    """Use only so many examples, drawn by the seed (to try things out)."""
    holdout: float = 0.0
    """Share of the pictures that is never trained on; the loss on it is told at validation."""
    skip_bad_images: bool = False
    """Leave unreadable pictures out, and say how many, instead of stopping before step 0."""
    center_crop: bool = False
    """Accepted as diffusers' flag, and changes nothing: the crop is always that of the centre."""
    random_flip: bool = False
    """Mirror each picture with probability 1/2."""
    dataloader_num_workers: int = 0
    """Processes that read and prepare pictures; 0 does it in the training process."""
    cache_dir: str | None = None
    """Where downloaded models and data sets, and encodings, are kept; the usual places if unset."""
    no_cache: bool = False
    """Encode pictures and captions at every step instead of once: slower, nothing kept on disk."""
    verify_cache: bool = False
    """Read every picture anew instead of trusting its size and time of change."""

    output_dir: str = "kandi_2_2-model-finetuned"
    """Where checkpoints, samples, logs and the final pipeline go."""
    resume_from_checkpoint: str | None = None
    """Resume from a checkpoint: its folder, its name in --output_dir such as checkpoint-500, or
    `latest` (none yet: start anew)."""
    checkpointing_steps: int = 500
    """Save a checkpoint every so many optimizer steps."""
    checkpointing_minutes: float | None = None
    """Save one also when so many minutes have passed since the last."""
    checkpoints_total_limit: int | None = None
    """Keep only so many checkpoints; the oldest goes once a new one stands."""

    preset: Preset | None = None
    """Set flags with which the training fits such a GPU; those you give win over it."""
    resolution: Annotated[int, About("resolution")] = 512
    """Side of the square the decoder learns, in pixels; both networks' samples are drawn at it."""
    train_batch_size: Annotated[int, About("pictures per process and micro-batch")] = 1
    """Pictures per process and micro-batch."""
    gradient_accumulation_steps: Annotated[int, About("gradient accumulation")] = 1
    """Micro-batches per optimizer step."""
    fuse_accumulation: Annotated[Literal["auto", "on", "off"], REMARKED] = "auto"
    """Run a step's micro-batches as one batch, the same mathematics; auto: where memory allows."""
    num_train_epochs: int = 100
    """Passes over the data, if --max_train_steps is not given."""
    max_train_steps: int | None = None
    """Optimizer steps in all; wins over --num_train_epochs."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    mixed_precision: Precision | None = None
    """Arithmetic of the networks; unset leaves the choice to `accelerate launch`."""
    allow_tf32: bool = False
    """TF32 matrix products on Ampere and newer: faster, slightly less exact."""
    enable_xformers_memory_efficient_attention: bool = False
    """Attention by xFormers, where installed; PyTorch's own is already memory-efficient."""
    seed: int | None = None
    """Seed of everything drawn at random; one is drawn, printed and saved if unset."""

    learning_rate: Annotated[float, About(card="learning rate", remarked=True)] = 1e-4
    """Peak learning rate. The guide's commands use 1e-5."""
    lr_scheduler: Annotated[Schedule, About(card="its schedule", remarked=True)] = "constant"
    """Shape of the learning rate over the optimizer steps."""
    lr_warmup_steps: Annotated[int, REMARKED] = 500
    """Optimizer steps of warm-up, for every shape but `constant`."""
    snr_gamma: Annotated[float | None, About(card="Min-SNR gamma", remarked=True)] = None
    """Min-SNR weighting of the loss (arXiv 2303.09556); the paper recommends 5.0."""
    condition_dropout: float = 0.0
    """Share of examples learnt without text or embedding, for guidance's sake; 0.1 is usual."""
    adam_beta1: Annotated[float, REMARKED] = 0.9
    """Decay of the first moment."""
    adam_beta2: Annotated[float | None, REMARKED] = None
    """Decay of the second moment; 0.999 if unset, 0.99 with --weights_dtype bf16."""
    adam_weight_decay: Annotated[float, REMARKED] = 0.0
    """Decoupled weight decay."""
    adam_epsilon: Annotated[float, REMARKED] = 1e-8
    """Added to the denominator."""
    max_grad_norm: Annotated[float, REMARKED] = 1.0
    """Gradients longer than this are scaled down to it; 0 leaves them as they are."""
    max_bad_steps: int = 100
    """Stop once more steps than this were skipped because loss or gradient was not finite."""
    optimizer: Optimizer = "adamw"
    """adamw8bit needs bitsandbytes; lion torch-optimi, and a rate 3 to 10 times lower."""
    use_8bit_adam: bool = False
    """The same as --optimizer adamw8bit: AdamW with 8-bit states (pip install bitsandbytes)."""
    weights_dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16 halves the trained weights, their gradients and the optimizer's state, and keeps beside
    them what rounding loses (Kahan summation, by torch-optimi)."""
    gradient_release: bool = False
    """Update each weight as soon as its gradient is there, and free that: 2 or 4 bytes less per
    weight. With accumulation 1, --max_grad_norm 0, one process and torch-optimi only."""
    compile: bool = False
    """Compile the network in training (torch.compile): the first steps take longer, others less."""
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """Start the kernels of a micro-batch all at once, as a CUDA graph: a GPU waits for them where
    batches are small; the results differ by rounding. auto: small ones, on one NVIDIA GPU."""
    preserve: str | None = None
    """Hold the network to what the base gives on generic prompts: a text file, one a line, or
    `builtin`. They are drawn and answered by the base once, and kept in the cache."""
    preserve_weight: float = 1.0
    """What the mean loss on them counts, against 1 for that on the own pictures."""
    preserve_share: float = 0.5
    """Their share of the examples of a step; the own pictures of a step stay as many."""
    lora: bool = False
    """Train a small adapter (LoRA, arXiv 2106.09685) beside the frozen network, not the network."""
    rank: int | None = None
    """Rank of the adapter; 4 if unset, as in diffusers' LoRA scripts."""
    lora_alpha: int | None = None
    """The adapter counts lora_alpha / rank times; the rank if unset, so once."""
    lora_dropout: float | None = None
    """Share of the adapter's inputs that is dropped in training; none if unset."""
    lora_targets: tuple[str, ...] = ()
    """Layers that get an adapter, by the end of their names; the attention's if unset."""
    use_dora: bool = False
    """Train also the length of the weights' rows (DoRA, arXiv 2402.09353); slower."""
    use_ema: Annotated[bool, About("moving average")] = False
    """Keep an exponential moving average of the weights; it is what is drawn with and exported."""
    ema_sigma_rel: float | None = None
    """Width of that average, as a share of the run (arXiv 2312.02696): 0.05 to 0.25 are usual."""

    validation_prompts: Annotated[
        tuple[str, ...],
        tyro.conf.arg(aliases=["--validation_prompt"], metavar="PROMPT [PROMPT ...]"),
        About(fact="prompts"),
    ] = ()
    """Prompts drawn during training, into output_dir/validation and the tracker."""
    validation_epochs: int = 5
    """Draw them after the first epoch and then every so many epochs, and at the end."""
    validation_steps: int | None = None
    """Validate every so many optimizer steps instead, and at the end."""
    validation_scores: int = 0
    """At validation also score what was learned, on held-out pictures, and what was kept, on
    generic prompts: so many of each at most; 64 is usual, 0 scores nothing."""
    keep_best: Annotated[Metric | None, About(fact="keep_best")] = None
    """Export the weights that were best at a validation, not the last: by the held-out loss, or by
    the scores learned, kept or both (their sum)."""
    patience: int | None = None
    """End the run after so many validations in a row without a better --keep_best."""
    report_to: Tracker = "tensorboard"
    """Where curves and samples are sent."""
    tracker_project_name: str = "text2image-fine-tune"
    """Project name in the tracker."""
    logging_dir: str = "logs"
    """Folder of the tracker's files, inside output_dir."""
    logging_steps: int = 10
    """Log the mean loss every so many optimizer steps."""

    push_to_hub: bool = False
    """Upload the final pipeline folder and its card. Log in first: `hf auth login`, or HF_TOKEN."""
    hub_model_id: str | None = None
    """Name of the repository; that of output_dir if unset."""
    hub_token: str | None = None
    """Token for the hub. Prefer `hf auth login`: others on the machine see a command line."""
    hub_prior_id: str | None = None
    """Hub name of the prior that belongs to a decoder, when the prior in use is a local folder."""
    local_rank: int = -1
    """Accepted for old launchers; the rank comes from the environment."""

    def __post_init__(self) -> None:
        check_types(self)
        training_checks.training(self)

    @property
    def live(self) -> bool:
        """Whether pictures and captions are encoded at every step."""
        return self.no_cache or self.streaming

    @property
    def role(self) -> str:
        """Which network is trained: "prior" or "decoder"."""
        raise NotImplementedError

    @property
    def reads_captions(self) -> bool:
        """Whether the captions of the own pictures are read."""
        return True


@dataclass(frozen=True, kw_only=True)
class PriorConfig(TrainConfig):
    """Fine-tune the prior: it turns a caption into the image embedding the decoder paints from.

    Example: wassily train prior --train_data_dir pics --learning_rate 1e-5 --max_train_steps 2000
    --validation_prompts "a robot naruto" --output_dir runs/prior
    """

    @property
    def role(self) -> str:
        """ "prior"."""
        return "prior"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(TrainConfig):
    """Fine-tune the decoder: it paints the picture from an image embedding. Captions are not
    needed.

    Example: wassily train decoder --train_data_dir pics --resolution 768 --gradient_checkpointing
    --learning_rate 1e-5 --max_train_steps 2000 --output_dir runs/decoder
    """

    bucket: bool = False
    """Crop each picture to the nearest of several shapes of about the square's area, not to the
    square itself; each optimizer step is of one shape."""
    drawn_embeds: str | None = None
    """Learn a share of the pictures from what this prior draws of their captions: name the tuned
    one that will be drawn with, such as runs/prior. They are made once and kept in the cache."""
    drawn_share: float = 0.5
    """That share."""
    variance_loss: Annotated[float, REMARKED] = 0.0
    """Weight of the variance half's own loss (arXiv 2102.09672); 0.001 is the paper's value. At 0
    that half has none, and how far it has drifted is logged at each validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "variance_loss")
        source_checks.check_generated_embeddings(self)
        require(
            not (self.bucket and self.with_prior_preservation),
            "--bucket and --with_prior_preservation: class pictures are squares; leave one out",
        )

    @property
    def role(self) -> str:
        """ "decoder"."""
        return "decoder"

    @property
    def reads_captions(self) -> bool:
        """For --drawn_embeds only."""
        return self.drawn_embeds is not None


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """What a plan is told besides the flags of the training."""

    needs_pictures: ClassVar[bool] = False

    gpu_memory: float | None = None
    """Memory of the GPU in GB; that of this machine's GPU if unset."""
    pictures: int | None = None
    """How many pictures there will be, if none are named."""
    pictures_per_second: float | None = None
    """Pictures a second, as a run shows them: tells the time."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        at_least(self, 1, "pictures")
        for name in ("gpu_memory", "pictures_per_second"):
            value = getattr(self, name)
            require(value is None or value > 0, f"--{name}: {value} is not above 0")
        most = self.gpu_memory
        require(most is None or most < 1e6, f"--gpu_memory: {most} is in GB; it is not below 1e6")


@dataclass(frozen=True, kw_only=True)
class PriorPlan(_Planned, PriorConfig):
    """Tell what a training of the prior takes, before it: memory, disk, steps, time.

    Example: wassily plan prior --gpu_memory 12 --train_batch_size 8 --pictures 1000
    """


@dataclass(frozen=True, kw_only=True)
class DecoderPlan(_Planned, DecoderConfig):
    """Tell what a training of the decoder takes, before it: memory, disk, steps, time.

    Example: wassily plan decoder --gpu_memory 12 --resolution 768 --pictures 1000
    """


def name(config: TrainConfig) -> str:
    """The optimizer that a config asks for; `--use_8bit_adam` is the guide's word for adamw8bit."""
    return "adamw8bit" if config.use_8bit_adam else config.optimizer
