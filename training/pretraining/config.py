"""The choices of one base-model build, in one place."""

from dataclasses import dataclass

from transformers import Starcoder2Config

# NF4 on CPUs with AVX512-BF16 repacks weights in blocks of 64 (and the heads of the model are that wide, too).
WIDTH_MULTIPLE = 64


@dataclass(frozen=True)
class BaseModelConfig:
    """What is built, from what, and for how long. The default is the model that ships."""

    seed: int = 2026
    """Decides the held-out modules, the first weights, and the order of the training text."""
    vocabulary_size: int = 4096
    """Tokens, END_OF_TEXT and the 256 bytes among them."""
    hidden_size: int = 192
    """Width of the residual stream."""
    intermediate_size: int = 768
    """Width inside each MLP."""
    layers: int = 5
    """Transformer blocks."""
    heads: int = 3
    """Query heads; hidden_size / heads is the width of one."""
    kv_heads: int = 1
    """Key and value heads, each shared by heads / kv_heads query heads."""
    context_tokens: int = 1024
    """The longest input; rotary positions beyond it were never trained."""
    minutes: float = 70.0
    """Wall-clock time of the training loop. The schedule is laid over time, so a slower machine takes fewer steps."""
    tokens_per_step: int = 4096
    """Tokens between two updates."""
    tokens_per_pass: int = 1024
    """Tokens in one forward pass; gradients of tokens_per_step / tokens_per_pass passes are summed."""
    short_context_tokens: int = 512
    """Length of the training windows at first, when attention to what is far away would be wasted."""
    long_context_from: float = 0.7
    """Share of the time after which windows are context_tokens long."""
    module_passes_per_test_pass: int = 2
    """How often an ordinary module is read for each time a test is: the held-out files are ordinary modules."""
    matrix_learning_rate: float = 0.02
    """Peak rate of Muon, which updates the matrices of the blocks (Jordan et al., 2024)."""
    other_learning_rate: float = 0.01
    """Peak rate of AdamW, which updates embeddings, norms, and biases."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and embeddings."""
    warmup_steps: int = 60
    """Steps of linear warm-up."""
    decay_from: float = 0.35
    """Share of the time after which the learning rate falls linearly to nothing."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm over all parameters."""
    checkpoint_every_s: float = 300.0
    """Seconds between two checkpoints, each a usable model."""
    bf16: bool = True
    """Whether matrix products of the training pass are computed in bfloat16. Weights are float32 all the time."""
    compile: bool = True
    """Whether torch.compile fuses the training pass."""

    def __post_init__(self) -> None:
        widths = {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "hidden_size / heads * kv_heads": self.hidden_size // self.heads * self.kv_heads,
        }
        for name, width in widths.items():
            if width <= 0 or width % WIDTH_MULTIPLE:
                raise ValueError(f"{name} is {width}; quantized layers need a multiple of {WIDTH_MULTIPLE}.")
        for window in (self.short_context_tokens, self.context_tokens):
            if self.tokens_per_pass % window or self.tokens_per_step % self.tokens_per_pass:
                raise ValueError(
                    f"Windows of {window} tokens must fill passes of {self.tokens_per_pass}, and those fill steps of "
                    f"{self.tokens_per_step}."
                )

    def architecture(self) -> Starcoder2Config:
        """Return the configuration that ships as config.json."""
        return Starcoder2Config(
            vocab_size=self.vocabulary_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.context_tokens,
            sliding_window=None,
            tie_word_embeddings=True,
            residual_dropout=0.0,
            embedding_dropout=0.0,
            attention_dropout=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
