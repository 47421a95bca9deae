"""The tokenizer of the small base model: byte-level BPE, so that any text is encodable and comes back unchanged."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
# Like GPT-2's, except that a word takes the one sign before it along (`.append`, `(self`, `_name`), which shortens
# code, and that digits stand alone. Line end and indentation stay together, less the last space: "\n       " + " return".
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Learn a vocabulary of exactly `vocabulary_size` tokens: END_OF_TEXT (id 0), the 256 bytes, and merges.

    Each token stands for one byte or more, so a text never has more tokens than UTF-8 bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary_size:
        raise ValueError(
            f"The text is too short for a vocabulary of {vocabulary_size}: it gave {tokenizer.get_vocab_size()} tokens."
        )
    return tokenizer


def for_transformers(tokenizer: Tokenizer, context_tokens: int) -> PreTrainedTokenizerFast:
    """Wrap the tokenizer so that AutoTokenizer loads it: it adds no tokens and leaves spaces as they are."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=context_tokens,
    )
