"""A base model with random weights, and rows for it: `python corpus.py FOLDER SHAPE`.

FOLDER gets model/ (starcoder2, safetensors, with a tokenizer whose tokens are words), and train and held_out, each as JSON Lines and
as Parquet. How long a row is is log-normal, and its prompt is a third to two thirds of it. How frequent a word is says Zipf's law, so
that there is something to learn. The number of the model's parameters is printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

VOCABULARY = 49_152  # starcoder2's
MAX_TOKENS = 512
MEDIAN_TOKENS, SIGMA = 120, 0.8
ROWS = {"train": 4_000, "held_out": 16}
END, PADDING = "<end>", "<padding>"
SPECIAL = {END: 0, PADDING: 1}  # so that whoever counts tokens can tell padding
SHAPES: dict[str, dict[str, int]] = {
    "29M": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 3},
    "125M": {"hidden_size": 768, "num_hidden_layers": 14, "num_attention_heads": 12, "num_key_value_heads": 4},
}
SEED = 17


def write_rows(folder: Path) -> None:
    random = np.random.default_rng(SEED)
    for name, count in ROWS.items():
        rows = [_row(random) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


def _row(random: np.random.Generator) -> dict[str, str]:
    tokens = int(np.clip(random.lognormal(np.log(MEDIAN_TOKENS), SIGMA), 8, MAX_TOKENS)) - 1  # less the end of text
    ranks = random.zipf(1.2, 2 * tokens + 100)
    words = [f"w{2 + rank * 7_919 % (VOCABULARY - 2)}" for rank in ranks[ranks < VOCABULARY][:tokens].tolist()]
    asked = int(len(words) * random.uniform(1 / 3, 2 / 3))
    return {"prompt": " ".join(words[:asked]) + " ", "completion": " ".join(words[asked:])}


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = SPECIAL | {f"w{number}": number for number in range(len(SPECIAL), VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PADDING).save_pretrained(folder)


def write_model(folder: Path, shape: str) -> int:
    """Returns the number of its parameters."""
    import torch
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    torch.manual_seed(SEED)
    config = Starcoder2Config(
        vocab_size=VOCABULARY,
        **SHAPES[shape],
        intermediate_size=4 * SHAPES[shape]["hidden_size"],
        max_position_embeddings=MAX_TOKENS,
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL[END],
        eos_token_id=SPECIAL[END],
        pad_token_id=SPECIAL[PADDING],
        residual_dropout=0.0,
        embedding_dropout=0.0,
        attention_dropout=0.0,
    )
    model = Starcoder2ForCausalLM(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main(folder: Path, shape: str) -> None:
    write_rows(folder)
    write_tokenizer(folder / "model")
    print(write_model(folder / "model", shape))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
