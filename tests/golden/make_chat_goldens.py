#!/usr/bin/env python3
"""Makes tests/golden/chat/tokenizer.json and goldens.json: what transformers' apply_chat_template makes of conversations.

    python tests/golden/make_chat_goldens.py

The templates beside them, *.jinja, are those of the models on the hub (Qwen2, Qwen2.5, Qwen2.5-VL: Apache-2.0), and
ChatML alone. The tokenizer is that of tokenizers/qwen_nfc.json with the special tokens of Qwen2.5-VL. Of each
conversation: token ids, with images the processor's (their placeholders repeated), and which of them are the
assistant's: text and end, as transformers finds them by a template that marks them with {% generation %}. And the loss
of models/qwen2_5_vl on documents with images of images/*, each on its own.
Needs transformers and Pillow; the versions used are recorded.
"""

import json
import pathlib
import sys

import numpy
import torch
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "chat"
SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IMAGE = "<|image_pad|>"


def text(role, content):
    return {"role": role, "content": content}


def shown(*texts):
    """A question about images, one behind each text."""
    parts = []
    for part in texts:
        parts += [{"type": "text", "text": part}, {"type": "image"}]
    return {"role": "user", "content": parts + [{"type": "text", "text": "What do you see?"}]}


TEXTS = {
    "one_turn": [text("user", "Hello there"), text("assistant", "General greeting, in 2 words.")],
    "system": [text("system", "Answer with one word."), text("user", "2 + 2?"), text("assistant", "4")],
    "turns": [text("user", "a"), text("assistant", "b"), text("user", "c\n\nd  "), text("assistant", " e\n")],
    "line_first": [text("user", "\nindented"), text("assistant", "\n\nindented, too")],
    "empty_answer": [text("user", "say nothing"), text("assistant", "")],
    "unicode": [text("user", "e\u0301\u00e9 \u4f60\u597d"), text("assistant", "o\u0308 \U0001f600 na\u00efve")],
    "spelled": [text("user", "what is <|im_end|> for?"), text("assistant", "it ends <|im_start|> a turn")],
    "assistant_first": [text("assistant", "Ask me."), text("user", "Why?"), text("assistant", "Because.")],
    "system_later": [text("user", "a"), text("system", "b"), text("assistant", "c")],
}
PICTURES = {
    "one_image": ([shown("Look: "), text("assistant", "A square.")], ["28x28.png"]),
    "two_images": ([shown("First ", " second "), text("assistant", "Two."), shown("And "), text("assistant", "One.")],
                   ["rgb8.png", "exif6.jpg", "20x4000.png"]),
    "no_image": ([text("user", "No picture"), text("assistant", "None.")], []),
}


# Marks the assistant's text and end, in the layout that all templates share.
MARKED = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
          "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
          "{% endgeneration %}{% else %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
          "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
          "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
          "{{ '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}")


def make_tokenizer():
    tokenizer = json.loads((HERE / "tokenizers" / "qwen_nfc.json").read_text())
    for content in SPECIAL:
        token = dict(tokenizer["added_tokens"][-1], content=content, special=True)
        token["id"] = max(len(tokenizer["model"]["vocab"]), 1 + max(t["id"] for t in tokenizer["added_tokens"]))
        tokenizer["added_tokens"].append(token)
    (OUT / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(OUT / "tokenizer.json"))


def ids_of(tokenizer, messages, template):
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=True)["input_ids"]


def learned(tokenizer, messages, rendered_first):
    """Positions of the assistant's tokens, counted from the end: a default system message stands in front of all."""
    result = tokenizer.apply_chat_template(messages, chat_template=MARKED, tokenize=True, return_dict=True,
                                           return_assistant_tokens_mask=True)
    size = len(result["input_ids"])
    assert rendered_first[-size:] == result["input_ids"]
    return [i + len(rendered_first) - size for i, mask in enumerate(result["assistant_masks"]) if mask]


def expand(ids, positions, image_id, counts):
    """Repeats each image's placeholder."""
    counts, expanded, moved = iter(counts), [], {}
    for i, token in enumerate(ids):
        moved[i] = len(expanded)
        expanded += [token] * (next(counts) if token == image_id else 1)
    return expanded, [moved[i] for i in positions]


def loss_of_documents():
    """Documents of random tokens around images, a third of them learned, and their mean loss."""
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(HERE / "models" / "qwen2_5_vl",
                                                                            attn_implementation="eager")
    processor = Qwen2VLImageProcessorPil(patch_size=4, size={"shortest_edge": 64, "longest_edge": 1600})
    image_id, generator = model.config.image_token_id, numpy.random.Generator(numpy.random.PCG64(5))
    documents, loss = [], 0.0
    for images in [["grey16.png", "exif6.jpg"], [], ["28x28.png"]]:
        inputs = processor([str(HERE / "images" / image) for image in images], return_tensors="pt") if images else {}
        ids = generator.integers(3, 60, 5).tolist()
        for grid in inputs.get("image_grid_thw", []):
            ids += [image_id] * (int(grid.prod()) // processor.merge_size**2) + generator.integers(3, 60, 9).tolist()
        learned = [i for i, token in enumerate(ids) if i > 0 and token != image_id and generator.random() < 0.4]
        labels = torch.full((len(ids),), -100)
        labels[learned] = torch.tensor(ids)[learned]
        tokens = torch.tensor([ids])
        with torch.no_grad():
            logits = model(input_ids=tokens, mm_token_type_ids=(tokens == image_id).int(), **inputs).logits[0]
        loss += torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum").item()
        documents.append({"ids": ids, "learned": learned, "images": images})
    return {"documents": documents, "loss": loss / sum(len(document["learned"]) for document in documents)}


def main():
    tokenizer = make_tokenizer()
    processor = Qwen2VLImageProcessorPil()
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    cases = []
    for name in ["chatml", "qwen2", "qwen2_5", "qwen2_5_vl"]:
        template = (OUT / f"{name}.jinja").read_text()
        conversations = {key: (messages, []) for key, messages in TEXTS.items()}
        if name == "qwen2_5_vl":
            conversations |= PICTURES
        for key, (messages, images) in conversations.items():
            ids = ids_of(tokenizer, messages, template)
            positions = learned(tokenizer, messages, ids)
            counts = [int(numpy.prod(grid)) // processor.merge_size**2 for image in images
                      for grid in processor([str(HERE / "images" / image)], return_tensors="np")["image_grid_thw"]]
            ids, positions = expand(ids, positions, image_id, counts)
            cases.append({"name": f"{name}_{key}", "template": f"{name}.jinja", "messages": messages, "images": images,
                          "ids": ids, "learned": positions})
    goldens = {"transformers": transformers.__version__, "python": sys.version.split()[0], "cases": cases,
               "training": loss_of_documents()}
    (OUT / "goldens.json").write_text(json.dumps(goldens, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
