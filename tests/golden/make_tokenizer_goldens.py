#!/usr/bin/env python3
"""Makes tests/golden/tokenizers: small tokenizers, trained here, and what the `tokenizers` package answers with them.

    python tests/golden/make_tokenizer_goldens.py [--smollm2 build/data/smollm2] [KIND ...]

Writes, for each kind, KIND.json (a tokenizer.json), and goldens.json: for the texts of the Debian packages jargon-text
and fortunes the number of ids, their hash and the first few (the texts themselves are not stored; their hash tells
whether another machine has the same ones), for the stress texts the ids in full or, where long, by hash. With KINDs,
only these are made anew.
Needs the package `tokenizers`; the versions used are recorded. SmolLM2's own tokenizer.json is not stored: its goldens
are for the folder that tools/make_smollm2.py makes.
"""

import argparse
import gzip
import json
import pathlib
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "tokenizers"
JARGON = pathlib.Path("/usr/share/doc/jargon-text/jargon.txt.gz")
FORTUNES = pathlib.Path("/usr/share/games/fortunes")
JARGON_LINES = 2000  # a document of the Jargon File
FIRST = 8            # ids that are stored of a long sequence
FULL = 400           # sequences up to this length are stored in full
VOCAB = 700

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def hash_bytes(data):
    """64-bit FNV-1a, as the C++ side computes it."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def hash_ids(ids):
    return hash_bytes(b"".join(i.to_bytes(4, "little") for i in ids))


# Texts ---------------------------------------------------------------------------------------------------------------


def corpus():
    """name -> text, of the Debian packages."""
    texts = {}
    lines = gzip.decompress(JARGON.read_bytes()).decode().splitlines(keepends=True)
    for i in range(0, len(lines), JARGON_LINES):
        texts[f"jargon:{i}"] = "".join(lines[i:i + JARGON_LINES])
    for path in sorted(FORTUNES.iterdir()):
        if path.suffix not in (".dat", ".u8"):  # an index, a link to the same text
            texts[f"fortunes:{path.name}"] = path.read_bytes().decode()
    return texts


def categories():
    """Thirty characters of every general category, in contexts where it matters to a pattern."""
    found = {}
    for code in range(0x110000):
        found.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    text = ""
    for category in sorted(set(found) - {"Cn", "Cs"}):
        members = found[category]
        for character in members[::max(1, len(members) // 30)][:30]:
            text += f"a{character}1 {character}{character}!{character}B\n"
    return text


def stress():
    """name -> (bytes, repetitions)."""
    texts = {
        "empty": "",
        "blank": " ",
        "emoji": "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 🇫🇷🇩🇪 👍🏽 skin 🤦🏿‍♂️",
        "combining": "e\u0301 vs \u00e9, a\u0308\u0323o\u0302, Z\u0335\u0321a\u0334l\u0336g\u0337o\u0338, \u0915\u094d\u0937",
        "cjk": "你好，世界。日本語のテキスト、カタカナ。한국어 문장입니다. ㄱㄴㄷ 漢字かな交じり文。𠮷野家 𡨸喃",
        "right-to-left": "مرحبا بالعالم ١٢٣ שלום עולם \u200fמעורב\u200e abc \u202eabc\u202c",
        "line-ends": "one\r\ntwo\r\n\r\nthree\rfour\n\n\nfive\u0085six\u2028seven\u2029eight\x0bnine\x0cten\r",
        "blanks": "a  b   c\t\td \t e\u00a0f\u00a0 g\u3000h\u2003\u2003i\u200bj\u180ek\u205fl\ufeffm   ",
        "contractions": "I'm you're we've he'll she'd it's don't O'Neill I'M YOU'RE IT'S 'S 'ſ ’s can''t 'twas",
        "digits": "0 12 123 1234567890 3.14159 1,000,000 0x1F 2024-06-30 ١٢٣ ²³ Ⅳ ½ ① 一二三 x1y22z333",
        "code": "def f(x):\n    return {'a': [1, 2], \"b\": x**2}  # ok\n\n\tif (a<=b && c!=d) { i++; }\n",
        "punctuation": "!!! ??? ... --- ___ *** «quoted» „deutsch“ …—–‐ ¡hola! ¿qué? @user #tag $5 50% a_b_c",
        "special": "<|endoftext|>a<|im_start|>user\nhi<|im_end|>\n <|im_end|> <|im_end <|endoftext|><|endoftext|>x",
        "added": "x <strip> y<strip>z  <strip>  <strip>\n word nword wordn (word) word's éword word\u0301 word",
        "new-digits": "a\U00010D40\U000116D0b\U00011BF9\U00011DE01 \U00011F50\U00016130c\U00016D79\U00016FF6 "
                      "\U0001CCF0\U0001D2D3x\U0001E4F05\U0001E5FAy\U0001E5FB",  # newer than most Unicode tables
        "controls": "a\0b\x01\x07\x08_\x08x\x1b[0m\x7f\u0080\u009f",
        "last-code-points": "\ud7ff\ue000\uffff\U00010000\U0010ffff\ufdd0",
        "math": "𝕳𝖊𝖑𝖑𝖔 𝒲ℴ𝓇𝓁𝒹 ∑∫√∞≠≤ αβγ ΑΒΓ ﬁ ﬀ ǆ ǅ Ǆ",
        "categories": categories(),
    }
    cases = {name: (text.encode(), 1) for name, text in texts.items()}
    cases["broken"] = (b"ok \xff\xfe abc \xc3( \xe2\x82 \xf0\x9f\x98 end\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80\x80 "
                       b"\xe2\x82\xac\x80 tail\xc3", 1)
    cases["cut-characters"] = ("naïve 你好 😀".encode().replace(b"\xbd", b"").replace(b"\x98", b""), 1)
    cases["spaces-100000"] = (b" ", 100_000)
    cases["newlines-20000"] = (b"\r\n", 10_000)
    cases["letters-50000"] = (b"a", 50_000)
    cases["emoji-5000"] = ("😀".encode(), 5_000)
    return cases


# Tokenizers ----------------------------------------------------------------------------------------------------------


def train(texts, pre_tokenizer, *, special=("<|endoftext|>",), added=(), post_processor=None, ignore_merges=False,
          normalizer=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=list(special), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(added))
    if post_processor:
        tokenizer.post_processor = post_processor(tokenizer)
    return tokenizer


BLANK = "\u2581"  # what SentencePiece writes for a blank


def train_fallback(texts, *, normalizer=None, pre_tokenizer=None, prefixed=True, added=()):
    """As converted from SentencePiece: characters, and bytes for those that the vocabulary lacks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special + bytes_, show_progress=False,
                                  limit_alphabet=150)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(added))
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] if prefixed else steps)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B",
                                                             special_tokens=[("<s>", 1)])
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in bytes_]
    return Tokenizer.from_str(json.dumps(data))


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def regex_then_bytes(pattern):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split(Regex(pattern)), byte_level])


def bos_and_eos(tokenizer):
    def special(name):
        return (name, tokenizer.token_to_id(name))
    template = processors.TemplateProcessing(single="<|im_start|> $A <|im_end|>", pair="$A $B",
                                             special_tokens=[special("<|im_start|>"), special("<|im_end|>")])
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), template])


def make_tokenizers(texts):
    """kind -> how to make it."""
    chat = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    byte_level = pre_tokenizers.ByteLevel
    end = AddedToken("<|im_end|>", special=True, normalized=False)
    return {
        "gpt2": lambda: train(texts, byte_level(add_prefix_space=False)),
        "digits": lambda: train(texts, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                                byte_level(add_prefix_space=False)]), special=chat),
        "llama3": lambda: train(texts, regex_then_bytes(LLAMA3), special=chat, post_processor=bos_and_eos,
                                ignore_merges=True),
        "qwen": lambda: train(texts, regex_then_bytes(QWEN), special=chat,
                              added=[AddedToken("word", single_word=True), AddedToken("user", special=False)]),
        "qwen_nfc": lambda: train(texts, regex_then_bytes(QWEN), special=chat, normalizer=normalizers.NFC()),
        "o200k": lambda: train(texts, regex_then_bytes(O200K)),
        "splits": lambda: train(texts, pre_tokenizers.Sequence([
            split("--", "merged_with_previous"), split(Regex(r"[,;]"), "merged_with_next"),
            split(Regex(r"\p{N}"), "contiguous"), split("_", "removed"), split(Regex(r"[^\r\n]+"), "isolated", True),
            pre_tokenizers.Digits(individual_digits=False), byte_level(add_prefix_space=True)]), special=chat,
                                added=[AddedToken("<strip>", lstrip=True, rstrip=True),
                                       AddedToken("word", rstrip=True)]),
        "gemma": lambda: train_fallback(texts, normalizer=normalizers.Replace(" ", BLANK), prefixed=False,
                                        pre_tokenizer=split(" ", "merged_with_previous"),
                                        added=[end, AddedToken("user", special=False, normalized=False)]),
        "llama2": lambda: train_fallback(texts, normalizer=normalizers.Sequence([
            normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)]), added=[end]),
        "mistral": lambda: train_fallback(texts, added=[end], pre_tokenizer=pre_tokenizers.Metaspace(
            prepend_scheme="first", split=False)),
        "metaspace": lambda: train_fallback(texts, added=[AddedToken("user", special=False, normalized=True)],
                                            pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="always")),
    }


# Answers -------------------------------------------------------------------------------------------------------------


UNANSWERED = "the package takes text, not bytes"


def encode(tokenizer, data):
    """ids, or None where the package would drop a byte that the vocabulary lacks."""
    if tokenizer.model.byte_fallback:
        try:
            return tokenizer.encode(data.decode(), add_special_tokens=True).ids
        except UnicodeDecodeError:
            return UNANSWERED
    vocab = tokenizer.get_vocab()
    symbols = dict(zip(sorted(set(range(256)) - PRINTABLE), range(256, 324)))
    ids, run = [], ""

    def flush():
        nonlocal run
        if run:
            ids.extend(tokenizer.encode(run, add_special_tokens=False).ids)
        run = ""

    def byte_id(byte):
        return vocab.get(chr(symbols.get(byte, byte)))

    if any(byte_id(byte) is None for byte in data):
        return None
    # Broken bytes are tokens by themselves; what lies between them is encoded as a text of its own.
    for character in data.decode("utf-8", errors="surrogateescape"):
        if 0xDC80 <= ord(character) <= 0xDCFF:
            flush()
            ids.append(byte_id(ord(character) - 0xDC00))
        else:
            run += character
    flush()
    around = tokenizer.encode("", add_special_tokens=True).ids
    return around[:1] + ids + around[1:]  # one before, the rest after: what the templates here ask for


PRINTABLE = set(range(0x21, 0x7F)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))


def answer(ids, full):
    if ids is None:
        return {"refused": True}
    if ids is UNANSWERED:
        return {"unanswered": True}
    stored = {"ids": ids} if full and len(ids) <= FULL else {"first": ids[:FIRST], "hash": hash_ids(ids)}
    return {"count": len(ids), **stored}


def main():
    parser = argparse.ArgumentParser(description="Makes the tokenizer goldens.")
    parser.add_argument("--smollm2", type=pathlib.Path, help="a folder made by tools/make_smollm2.py")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="make only these anew")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    texts, cases = corpus(), stress()
    training = list(texts.values())[:8] + [data.decode() * count for name, (data, count) in cases.items()
                                           if name not in ("broken", "cut-characters") and count == 1]
    makers = make_tokenizers(training)
    made = {}
    for kind in options.kinds or makers:
        data = json.loads(makers[kind]().to_str())
        (OUT / f"{kind}.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")
        made[kind] = Tokenizer.from_file(str(OUT / f"{kind}.json"))
    if options.smollm2:
        made["smollm2"] = Tokenizer.from_file(str(options.smollm2 / "tokenizer.json"))
    goldens = {
        "generator": pathlib.Path(__file__).name,
        "versions": {"tokenizers": tokenizers.__version__, "python": sys.version.split()[0],
                     "unicodedata": unicodedata.unidata_version},
        "jargon_lines": JARGON_LINES,
        "corpus": {name: {"bytes": len(text.encode()), "hash": hash_bytes(text.encode())}
                   for name, text in texts.items()},
        "stress": {name: {"hex": data.hex(), "repeat": count} for name, (data, count) in cases.items()},
        "kinds": {kind: {"corpus": {name: answer(encode(tokenizer, text.encode()), False)
                                    for name, text in texts.items()},
                         "stress": {name: answer(encode(tokenizer, data * count), True)
                                    for name, (data, count) in cases.items()}}
                  for kind, tokenizer in made.items()},
    }
    if options.kinds:
        kept = json.loads((OUT / "goldens.json").read_text())
        assert all(kept[key] == goldens[key] for key in ("versions", "jargon_lines", "corpus", "stress")), "make all"
        goldens["kinds"] = {**kept["kinds"], **goldens["kinds"]}
    (OUT / "goldens.json").write_text(json.dumps(goldens, separators=(",", ":")).replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
