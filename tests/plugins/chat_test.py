"""Conversations prepared by the program under templates from folders and files, beside transformers; and those that a template refuses."""
import json
import sys
from pathlib import Path

import h5py
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from tiny import Workplace, check

CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
BOXED = '{% if messages[0].role != "system" %}{{ "<|im_start|>system\nDon\'t guess, use \\\\boxed{}.<|im_end|>\n" }}{% endif %}' + CHATML
PHI4 = "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
GEMMA = "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
TOOLS = "{% if tools %}{{ 'can: ' + tools | map(attribute='name') | join(',') + '\n' }}{% endif %}" + CHATML.replace("m.content +", "(m.content or '') + (m.tool_calls | tojson if m.tool_calls else '') +")

TALKS = [
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello \u00e9"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
    [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}],
]


def make_tokenizer(folder, template):
    """A byte tokenizer in a model folder, whose weights nobody reads."""
    folder.mkdir()
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_sep|>", "<|im_end|>", "<bos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>"}
    if isinstance(template, str):
        config["chat_template"] = template
    else:
        for name, text in template.items():
            file = folder / ("chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tiny_model(folder, tokenizer.get_vocab_size())


def tiny_model(folder, size):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(vocab_size=size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(folder)


def prepare(place, name, rows, **recipe):
    """What the program says, and each sample: its text and its answers."""
    (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.items())
    (place / f"{name}.toml").write_text(f'name = "{name}"\nkind = "instruction"\nlicence = "CC0-1.0"\noutput = "{name}.h5"\n{settings}\n[[source]]\npath = "{name}.jsonl"\nlayout = "messages"\n\n[split]\nvalidation = 0\n')
    said = place.run(build / "attune", "prepare", f"{name}.toml")
    tokenizer = Tokenizer.from_file(str(place / recipe["tokenizer"] / "tokenizer.json"))
    with h5py.File(place / f"{name}.h5") as file:
        group = file["train"]
        bounds = group["tokens.offsets"][...]
        columns = [[group[key][...][b:e] for b, e in zip(bounds, bounds[1:])] for key in ("tokens", "loss_mask")]
    decode = lambda ids: tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
    return said, [(decode(tokens), decode(tokens[mask == 1])) for tokens, mask in zip(*columns)]


def expected(folder, talks, **more):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    for talk in talks:
        try:
            texts.append(tokenizer.apply_chat_template(talk, tokenize=False, **more))
        except Exception:
            pass
    return sorted(texts)


def check_templates(place):
    for name, template in {"boxed": BOXED, "phi4": PHI4, "gemma": GEMMA, "file": {"default": BOXED}}.items():
        make_tokenizer(place / name, template)
        said, samples = prepare(place, f"talks-{name}", [{"messages": talk} for talk in TALKS], tokenizer=name)
        check(sorted(text for text, _ in samples) == expected(place / name, TALKS), f"{name}: {samples}")
        if name == "gemma":
            check(len(samples) == 1 and "Roles must alternate" in said, said)
        else:
            check(("Hello \u00e9<|im_end|>" in [answer for _, answer in samples]), f"{name}: {samples}")
    # A file that the recipe names goes before the model's own.
    (place / "mine.jinja").write_text(PHI4, encoding="utf-8")
    _, samples = prepare(place, "named", [{"messages": talk} for talk in TALKS], tokenizer="boxed", template="mine.jinja")
    check(sorted(text for text, _ in samples) == expected(place / "phi4", TALKS), samples)
    (place / "lost.toml").write_text((place / "named.toml").read_text().replace("mine.jinja", "lost.jinja"))
    said = place.run(build / "attune", "prepare", "lost.toml", expect=2)
    check("lost.jinja: there is no such file" in said, said)


def check_tools(place):
    make_tokenizer(place / "tools", {"default": CHATML, "tool_use": TOOLS})
    tools = [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": "\u00e9"}}}]}, {"role": "tool", "content": "7"}, {"role": "assistant", "content": "It is 7."}]
    _, samples = prepare(place, "calls", [{"messages": talk, "tools": tools}], tokenizer="tools")
    check([text for text, _ in samples] == expected(place / "tools", [talk], tools=tools), samples)
    check(samples[0][1] == '[{"function": {"name": "f", "arguments": {"b": 1, "a": "\u00e9"}}}]<|im_end|>It is 7.<|im_end|>', samples)


PHI3 = "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"


def check_left_out(place):
    """What a template would drop in silence is told: the text would be the same without it."""
    make_tokenizer(place / "phi3", PHI3)
    user, answer, call = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    rows = [
        {"messages": [{"role": "system", "content": "Be kind."}, user, answer]},
        {"messages": [user, answer, {"role": "tool", "content": "dry"}, answer]},
        {"messages": [user, answer | {"content": "", "tool_calls": call}]},
        {"messages": [user, answer | {"reasoning_content": "because"}]},
        {"messages": [user, answer], "tools": call},
        {"messages": [user, answer]},
    ]
    said, samples = prepare(place, "left-out", rows, tokenizer="phi3", list_rejected=True)
    reasons = [json.loads(line)["reason"] for line in (place / "left-out.h5.rejected.jsonl").read_text().splitlines()]
    for reason, part in zip(sorted(reasons), ["message of the role 'system'", "message of the role 'tool'", "reasoning of an answer", "tool calls", "tools;"], strict=True):
        check(reason.startswith(f"the chat template omits the {part}"), f"{part}: {reason}")
    check([text for text, _ in samples] == expected(place / "phi3", [rows[-1]["messages"]]), f"the sound row stays: {samples}, {said}")
    said = place.run(build / "attune", "generate", "phi3", "--prompt", "Hi", "--max-tokens", "2", "--system", "Be kind.", expect=2)
    check("omits the message of the role 'system'" in said, said)


def check_files_of_windows(place):
    """A byte order mark is no part of a template, neither in the data nor in what is exported."""
    make_tokenizer(place / "marked", {"default": CHATML})
    file = place / "marked" / "chat_template.jinja"
    file.write_bytes(b"\xef\xbb\xbf" + CHATML.encode())
    _, samples = prepare(place, "marked-rows", [{"messages": TALKS[0]}], tokenizer="marked")
    place.run(build / "attune", "export", "marked", "--to", "marked-out")
    texts = [text for text, _ in samples]
    check(texts[0].startswith("<|im_start|>") and texts == expected(place / "marked-out", TALKS[:1]), texts)


def check_prompts(place):
    """Generation asks in the same words, and names the template's refusal."""
    said = place.run(build / "attune", "generate", "gemma", "--prompt", "Hi", "--max-tokens", "2", "--system", "S", expect=2)
    check("Roles must alternate; change the prompt, or give --raw" in said, said)
    place.run(build / "attune", "generate", "boxed", "--prompt", "Hi", "--max-tokens", "2")


build = Path(sys.argv[1]).resolve()
place = Workplace(build / "chat_test")
check_templates(place)
check_tools(place)
check_left_out(place)
check_files_of_windows(place)
check_prompts(place)
