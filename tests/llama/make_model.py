"""Makes a tiny language model with random weights, in GGUF, for llama.cpp.

    python make_model.py tiny.gguf

It speaks gibberish of common words, but it is a real model: llama architecture, two layers, a
vocabulary of bytes and some words, about 1 MB. Needs the packages `gguf` and `numpy`; nothing is
downloaded. The same words come out of the same seed.
"""

import sys

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 128, 4096
SEED = 20

WORDS = """the a one two little big red blue old new house tree river stone bird fish cat dog road light
sun moon rain wind sea sand hand eye day night water fire bread salt door key book song sleep walk run see
hear find make take give come go stay and or but so then now here there under over with without""".split()

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def vocabulary():
    """Tokens with scores and types, as SentencePiece has them: specials, bytes, words."""
    kind = gguf.TokenType
    tokens = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    tokens += [(f"\u2581{word}", -float(rank), kind.NORMAL) for rank, word in enumerate(WORDS)]
    return tokens


def write_model(path):
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.encode() for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)

    random = np.random.default_rng(SEED)

    def tensor(name, *shape, keep_bias=False):
        weights = random.normal(0.0, 0.3, shape).astype(np.float32)
        if keep_bias:
            weights[0] = 0.0  # adds nothing to the first dimension
        writer.add_tensor(name, weights)

    def ones(name):
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    # The first dimension is the same for all tokens, so that it works as a bias at the output: words
    # are likely, the end is rare, and bytes, which would be broken UTF-8, never come.
    embeddings = random.normal(0.0, 1.0, (len(tokens), WIDTH)).astype(np.float32)
    embeddings[:, 0] = 5.0
    writer.add_tensor("token_embd.weight", embeddings)
    output = random.normal(0.0, 0.5, (len(tokens), WIDTH)).astype(np.float32)
    output[:, 0] = [0.0 if kind == gguf.TokenType.NORMAL else -20.0 for _, _, kind in tokens]
    output[2, 0] = -1.0
    writer.add_tensor("output.weight", output)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v"):
            tensor(f"{block}.{name}.weight", WIDTH, WIDTH)
        tensor(f"{block}.attn_output.weight", WIDTH, WIDTH, keep_bias=True)
        tensor(f"{block}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        tensor(f"{block}.ffn_up.weight", FEED_FORWARD, WIDTH)
        tensor(f"{block}.ffn_down.weight", WIDTH, FEED_FORWARD, keep_bias=True)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_model.py MODEL.gguf")
    write_model(sys.argv[1])
