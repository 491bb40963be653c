"""`attune generate` answers as transformers' model.generate does: where it ends, and by which of the model's generation defaults.

    generate_test.py BUILD_FOLDER
"""
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "generate")
torch.set_grad_enabled(False)

WORDS = [f"w{i}" for i in range(60)]
PROMPT = "w3 w1 w4"


def network(seed):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 max_position_embeddings=64, bos_token_id=None, eos_token_id=None)
    net = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    for parameter in net.parameters():
        parameter.mul_(8 if parameter.dim() > 1 else 1)
    return net


def is_varied(net):
    """Whether the likeliest tokens do not soon repeat."""
    asked = torch.tensor([[WORDS.index(word) for word in PROMPT.split()]])
    made = net.generate(asked, max_new_tokens=8, do_sample=False, pad_token_id=0)[0].tolist()
    return len(set(made)) == len(made)


def make(name, config=None, generation=None, tokenizer_config=None, special_tokens_map=None):
    """A Llama with random weights, the same each time, and a tokenizer of whole words."""
    folder = place / name
    NET.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    made = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(made | (config or {})))
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | (tokenizer_config or {})))
    if special_tokens_map:
        (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens_map))
    return name


def ours(name, *options):
    return place.run(program, "generate", name, "--prompt", PROMPT, "--raw", *options)


def answer(name, *options):
    """The answer alone, without what stderr said before it."""
    return [word for word in ours(name, *options).splitlines()[-1].split() if word in WORDS]


def theirs(name, **more):
    """Without what a model's files end an answer with."""
    net, tokenizer = AutoModelForCausalLM.from_pretrained(place / name), AutoTokenizer.from_pretrained(place / name)
    asked = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=False).input_ids
    made = net.generate(asked, pad_token_id=0, **more)[0, asked.shape[1]:].tolist()
    ends = net.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return [WORDS[i] for i in made if i not in ends]


NET = next(net for net in map(network, range(1000)) if is_varied(net))

# Where it ends.
plain = theirs(make("plain"), max_new_tokens=12)
check(len(plain) == 12 and len(set(plain[:8])) == 8, f"the model gives different words: {plain}")
check(answer("plain", "--max-tokens", 12) == plain, "the same tokens as in transformers")
first, second = WORDS.index(plain[5]), WORDS.index(plain[3])
unused = next(i for i in range(len(WORDS)) if WORDS[i] not in plain)
for name, kinds in {
    "integer": dict(config={"eos_token_id": second}),
    "list": dict(config={"eos_token_id": [first, second]}),
    "generation": dict(config={"eos_token_id": unused}, generation={"eos_token_id": [unused, second]}),
    "generation_integer": dict(generation={"eos_token_id": second}),
}.items():
    check(answer(make(name, **kinds), "--max-tokens", 12) == theirs(name, max_new_tokens=12) == plain[:3], f"{name}: ends where transformers ends")
for name, kinds in {  # what transformers leaves to the caller, or has in classes of another form
    "nested": dict(config={"text_config": {"eos_token_id": [second]}}),
    "tokenizer": dict(tokenizer_config={"eos_token": WORDS[second]}),
    "tokenizer_object": dict(tokenizer_config={"eos_token": {"content": WORDS[second], "lstrip": False}}),
    "map": dict(special_tokens_map={"eos_token": {"content": WORDS[second]}}),
    "either": dict(config={"eos_token_id": first}, generation={"eos_token_id": unused}, tokenizer_config={"eos_token": WORDS[second]}),
}.items():
    check(answer(make(name, **kinds), "--max-tokens", 12) == plain[:3], f"{name}: ends at the end-of-text token")

# By which defaults.
for name, generation in {
    "new_tokens": {"max_new_tokens": 7},
    "length": {"max_length": 9},
    "penalty": {"repetition_penalty": 1.8, "max_new_tokens": 20},
    "top_k": {"do_sample": True, "top_k": 1, "max_new_tokens": 9},
    "top_p": {"do_sample": True, "top_p": 1e-6, "max_new_tokens": 9},
    "min_p": {"do_sample": True, "min_p": 1.0, "max_new_tokens": 9},
    "temperature": {"do_sample": True, "temperature": 1e-4, "max_new_tokens": 9},
    "not_sampled": {"do_sample": False, "temperature": 5.0, "top_k": 3, "max_new_tokens": 9},
}.items():
    expected = theirs(make(name, generation=generation))
    check(answer(name) == expected, f"{name}: {answer(name)}, not {expected}")
    said = ours(name)
    check(("sampling with the model's defaults" in said) == bool(generation.get("do_sample")), f"{name}: sampling is told: {said}")
    check("ignored" not in said, f"{name}: nothing is ignored: {said}")
check(answer("penalty", "--max-tokens", 20) != answer("penalty", "--max-tokens", 20, "--repetition-penalty", 1), "a penalty changes the answer, and the command line takes it away")

# Older models have these keys in config.json; transformers 5 reads them there too, when it makes their generation config.
make("older", config={"max_new_tokens": 5, "repetition_penalty": 1.8})
check(answer("older") == theirs("older"), f"config.json without generation_config.json: {answer('older')}")

# Options of the command line win.
make("hot", generation={"do_sample": True, "temperature": 50.0, "max_new_tokens": 9, "top_k": 0})
check(answer("hot", "--temperature", 0) == plain[:9], "--temperature 0 turns sampling off")
check(answer("hot", "--top-k", 1) == plain[:9] and answer("hot", "--top-p", 1e-6) == plain[:9], "--top-k and --top-p limit it")
check(len(answer("hot", "--max-tokens", 4)) == 4, "--max-tokens")
check(answer("hot", "--seed", 1) != answer("hot", "--seed", 2) and answer("hot", "--seed", 1) == answer("hot", "--seed", 1), "sampling follows its seed")
check(len(answer("length", "--max-tokens", 11)) == 11, "--max-tokens goes before max_length")
check(len(answer("plain")) == 61, "without defaults 64 tokens, or what the context holds")

# What is not done is told, in one line; what changes nothing is not.
make("beams", generation={"num_beams": 4, "no_repeat_ngram_size": 3, "typical_p": 1.0, "num_return_sequences": 1, "future_key": 1, "bos_token_id": 1, "use_cache": False,
                          "cache_implementation": "hybrid", "suppress_tokens": None, "max_new_tokens": 3})
told = [line for line in ours("beams").splitlines() if "ignored" in line]
check(told == ["ignored generation defaults of the model: future_key, no_repeat_ngram_size, num_beams"], f"{told}")

# A value that cannot be.
for key, value in (("temperature", "warm"), ("top_p", 1.5), ("do_sample", 1), ("repetition_penalty", 0)):
    said = place.run(program, "generate", make("wrong", generation={"do_sample": True} | {key: value}), "--prompt", PROMPT, expect=2)
    check(f"generation_config.json has {key} = {json.dumps(value)}" in said, f"{key}: {said}")
said = place.run(program, "generate", make("short", generation={"max_length": 3}), "--prompt", PROMPT, expect=2)
check("max_length of prompt plus answer is 3" in said, said)
