#!/usr/bin/env python3
"""Makes a Hugging Face folder of a small Qwen2.5-VL with random weights and a tokenizer of single bytes.

    tools/make_small_vlm.py build/data/small_vlm

For recipes that fine-tune a vision-language model in minutes on a CPU: 0.6 million parameters, patches of 4 x 4 pixels,
2 x 2 of them a token. What it writes depends on nothing else. Needs numpy.
"""

import argparse
import json
import pathlib
import struct

import numpy

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]
IDS = {text: 256 + i for i, text in enumerate(SPECIAL)}
TEXT = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2}
VISION = {"depth": 3, "hidden_size": 64, "intermediate_size": 160, "num_heads": 4, "out_hidden_size": 96,
          "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3, "window_size": 16,
          "fullatt_block_indexes": [1], "hidden_act": "silu", "tokens_per_second": 2}

# The layout of Qwen2.5-VL.
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content"
    " or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture "
    "{{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' "
    "or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video "
    "{{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}")


def model_config():
    head_dim = TEXT["hidden_size"] // TEXT["num_attention_heads"]
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "dtype": "float32",
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen2_5_vl_text", "dtype": "float32", "hidden_act": "silu", "vocab_size": 256 + len(SPECIAL),
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "attention_dropout": 0.0,
            "eos_token_id": IDS["<|im_end|>"], "bos_token_id": None, "use_sliding_window": False,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                                "mrope_section": [head_dim // 2 - 2 * (head_dim // 6), head_dim // 6, head_dim // 6]},
            **TEXT},
        "vision_config": {"model_type": "qwen2_5_vl", **VISION},
    }


def parameter_shapes():
    """name -> shape, by the names of transformers."""
    hidden, mlp, head_dim = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["hidden_size"] // TEXT["num_attention_heads"]
    shapes = {"model.language_model.embed_tokens.weight": (256 + len(SPECIAL), hidden),
              "model.language_model.norm.weight": (hidden,)}
    for layer in range(TEXT["num_hidden_layers"]):
        path = f"model.language_model.layers.{layer}."
        for name, heads in [("q", TEXT["num_attention_heads"]), ("k", TEXT["num_key_value_heads"]),
                            ("v", TEXT["num_key_value_heads"])]:
            shapes[f"{path}self_attn.{name}_proj.weight"] = (heads * head_dim, hidden)
            shapes[f"{path}self_attn.{name}_proj.bias"] = (heads * head_dim,)
        shapes[path + "self_attn.o_proj.weight"] = (hidden, hidden)
        shapes |= {path + "mlp.gate_proj.weight": (mlp, hidden), path + "mlp.up_proj.weight": (mlp, hidden),
                   path + "mlp.down_proj.weight": (hidden, mlp), path + "input_layernorm.weight": (hidden,),
                   path + "post_attention_layernorm.weight": (hidden,)}
    width, inner, patch = VISION["hidden_size"], VISION["intermediate_size"], VISION["patch_size"]
    shapes["model.visual.patch_embed.proj.weight"] = (width, 3, VISION["temporal_patch_size"], patch, patch)
    for layer in range(VISION["depth"]):
        path = f"model.visual.blocks.{layer}."
        for name, rows, columns in [("attn.qkv", 3 * width, width), ("attn.proj", width, width),
                                    ("mlp.gate_proj", inner, width), ("mlp.up_proj", inner, width),
                                    ("mlp.down_proj", width, inner)]:
            shapes[f"{path}{name}.weight"], shapes[f"{path}{name}.bias"] = (rows, columns), (rows,)
        shapes |= {path + "norm1.weight": (width,), path + "norm2.weight": (width,)}
    merged = width * VISION["spatial_merge_size"]**2
    shapes |= {"model.visual.merger.ln_q.weight": (width,), "model.visual.merger.mlp.0.weight": (merged, merged),
               "model.visual.merger.mlp.0.bias": (merged,), "model.visual.merger.mlp.2.weight": (hidden, merged),
               "model.visual.merger.mlp.2.bias": (hidden,)}
    return shapes


def random_weights():
    generator = numpy.random.Generator(numpy.random.PCG64(1))
    weights = {}
    for name, shape in sorted(parameter_shapes().items()):
        if len(shape) == 1:
            weights[name] = numpy.full(shape, 0.0 if name.endswith("bias") else 1.0, "<f4")
        else:
            weights[name] = (generator.standard_normal(shape) * 0.03).astype("<f4")
    return weights


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values.tobytes() for values in tensors.values()))


def byte_symbols():
    """GPT-2's spelling of each byte: printable ones as themselves, the others as code points from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)}


def tokenizer():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for text, i in IDS.items()]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {symbol: byte for byte, symbol in byte_symbols().items()}, "merges": []}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Makes the folder of a small Qwen2.5-VL with random weights.")
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    weights = random_weights()
    write_json(folder / "config.json", model_config())
    write_json(folder / "tokenizer.json", tokenizer())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>",
                                                  "pad_token": "<|endoftext|>", "model_max_length": 4096})
    write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "patch_size": 4,
        "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 64, "max_pixels": 4096})
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_safetensors(folder / "model.safetensors", weights)
    print(f"{folder}: {sum(values.size for values in weights.values())} parameters")


if __name__ == "__main__":
    main()
