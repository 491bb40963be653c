"""Models of transformers as GGUF files: what llama.cpp's convert_hf_to_gguf.py writes for them."""

import math

import numpy
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gpt2": "gpt2",
    "bert": "bert",
    "roberta": "bert",
    "distilbert": "bert",
}

# Where a block holds its scales, which are halves unless noted.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
    "TQ1_0": [52],
    "TQ2_0": [64],
}


def random_blocks(kind, rows, columns, random, scales):
    """Rows of random blocks. scales: what to draw their scales from; a block of MXFP4 has an exponent instead."""
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (rows * columns // values, size), dtype=numpy.uint8)
    for place in SCALES[kind]:
        blocks[:, place : place + 2] = (
            random.choice(numpy.array(scales, numpy.float16), len(blocks)).view(numpy.uint8).reshape(-1, 2)
        )
    if kind == "MXFP4":
        blocks[:, 0] = random.integers(112, 120, len(blocks))
    return blocks.reshape(rows, -1)


def permuted(rows, heads):
    """Rows of Q and K as llama.cpp's rotary embedding wants them."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def unpermuted(rows, heads):
    return (
        rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def heads_of(name, config):
    """How many heads' rows a tensor holds that the converter permutes; 0: it does not."""
    if config.model_type not in ("llama", "mistral"):
        return 0
    return (
        config.num_attention_heads
        if ".q_proj." in name
        else config.num_key_value_heads if ".k_proj." in name else 0
    )


def converted(name, values, config):
    """A tensor of the model as the file holds it."""
    if heads := heads_of(name, config):
        return permuted(values, heads)
    if config.model_type == "gemma2" and name.endswith("norm.weight"):
        return values + 1
    if config.model_type == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return values.T
    if config.model_type == "roberta" and "position_embeddings" in name:
        return values[config.pad_token_id + 1 :]
    return values


def llama3_factors(scaling, base, width):
    factors = []
    for exponent in range(0, width, 2):
        wavelength = 2 * math.pi * base ** (exponent / width)
        turns = scaling["original_max_position_embeddings"] / wavelength
        low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
        share = min(max((turns - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - share) / factor + share))
    return numpy.array(factors, numpy.float32)


def add_positions(writer, config, width):
    """Rotary positions, stretched or not."""
    scaling = config.rope_parameters
    writer.add_rope_freq_base(scaling["rope_theta"])
    kind = scaling.get("rope_type", "default")
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(scaling, scaling["rope_theta"], width))
    if kind in ("linear", "yarn"):
        writer.add_string(f"{writer.arch}.rope.scaling.type", kind)
        writer.add_rope_scaling_factor(scaling["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def add_metadata(writer, config):
    writer.add_name("tiny")
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_context_length(config.max_position_embeddings)
    inner = (
        getattr(config, "intermediate_size", None)
        or getattr(config, "hidden_dim", None)
        or 4 * config.hidden_size
    )
    writer.add_feed_forward_length(inner)
    if config.model_type in ("bert", "roberta", "distilbert"):
        writer.add_causal_attention(False)
    if not hasattr(config, "rms_norm_eps"):
        return writer.add_layer_norm_eps(
            getattr(config, "layer_norm_eps", getattr(config, "layer_norm_epsilon", 1e-12))
        )
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    if config.model_type in ("llama", "mistral"):
        writer.add_rope_dimension_count(width)
    if config.model_type in ("mistral", "gemma2"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    add_positions(writer, config, width)


def write_gguf(path, model, blocks=None, split=0):
    """The file of a transformers model in float32.

    blocks: {name in the model: (type, bytes of the tensor as the file holds it)} for those that are quantized;
    split: tensors in a part, 0: one file.
    """
    config, blocks = model.config, blocks or {}
    name = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, name, split_max_tensors=split)
    add_metadata(writer, config)
    architecture = next(key for key, value in MODEL_ARCH_NAMES.items() if value == name)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    for own, tensor in model.state_dict().items():
        if own in tied or "pooler" in own:
            continue
        their = names.get_name(own, try_suffixes=(".weight", ".bias"))
        assert their, own
        if own in blocks:
            kind, raw = blocks[own]
            writer.add_tensor(their, raw, raw_dtype=GGMLQuantizationType[kind])
        else:
            writer.add_tensor(their, numpy.ascontiguousarray(converted(own, tensor.numpy(), config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
