"""A model is exported, and asked, with the chat template that its training data were written with.

    trained_chat_test.py BUILD_FOLDER
"""
import json
import sys
from pathlib import Path

import h5py
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check

build = Path(sys.argv[1]).resolve()
program = build / "attune"
place = Workplace(build / "tests" / "trained_chat")

OWN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
OTHER = "\n{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '|' + m['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant|' }}{% endif %}"
TALKS = [
    [{"role": "user", "content": "a? \"b\"\\"}, {"role": "assistant", "content": "c é\n"}],
    [{"role": "system", "content": " S\n"}, {"role": "user", "content": " d'e "}, {"role": "assistant", "content": " f "}, {"role": "user", "content": "g"}, {"role": "assistant", "content": "h"}],
] * 4
FORMS = ["alpaca", "chatml", "gemma", "llama2", "llama3", "mistral-v1", "mistral-v3", "plain"]
MARKS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>"]


def make_base(name, template=None, **settings):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(MARKS)
    torch.manual_seed(0)
    end = tokenizer.token_to_id("</s>")
    LlamaForCausalLM(LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                 max_position_embeddings=512, bos_token_id=None, eos_token_id=end)).save_pretrained(place / name)
    tokenizer.save(str(place / name / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"} | settings
    (place / name / "tokenizer_config.json").write_text(json.dumps(settings | ({"chat_template": template} if template else {})))


def prepare(name, tokenizer, template):
    (place / f"{name}.toml").write_text(f'name = "{name}"\nkind = "instruction"\nlicence = "CC0-1.0"\noutput = "{name}.h5"\ntokenizer = "{tokenizer}"\n' +
                                        (f'template = "{template}"\n' if template else "") +
                                        '[[source]]\npath = "talks.jsonl"\nlayout = "messages"\n[clean]\ndeduplicate = "none"\n[split]\nvalidation = 0.25\n')
    place.run(program, "prepare", f"{name}.toml")


def train(name, base, data, strategy='plugin = "full"'):
    (place / f"{name}.toml").write_text(f'name = "{name}"\n[model]\nplugin = "llama"\npath = "{base}"\n[dataset]\nplugin = "instruction"\npath = "{data}.h5"\n'
                                        f"[strategy]\n{strategy}\n[train]\nsteps = 1\nglobal_batch = 2\nmicro_batch = 2\nlearning_rate = 1e-3\n")
    return place.run(program, "train", f"{name}.toml")


def texts_of(data, tokenizer):
    texts = set()
    with h5py.File(place / f"{data}.h5") as file:
        for split in ("train", "validation"):
            tokens, bounds = file[split]["tokens"][...], file[split]["tokens.offsets"][...]
            texts |= {tokenizer.decode(tokens[a:b].tolist(), skip_special_tokens=False) for a, b in zip(bounds, bounds[1:])}
    return texts


def check_template(folder, data, what):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for texts in [texts_of(data, tokenizer)]:
        rendered = {tokenizer.apply_chat_template(talk, tokenize=False) for talk in TALKS}
        check(rendered == texts, f"{what}: transformers writes {rendered}, and the data hold {texts}")


(place / "talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in TALKS))
(place / "other.jinja").write_text(OTHER)
make_base("bare")
make_base("own", OWN, bos_token="<s>")

# A base without a template: every form becomes one, and its closing mark ends a text.
for form in FORMS:
    prepare(form, "bare", form)
    train(f"run-{form}", "bare", form)
    check_template(place / f"runs/run-{form}/model", form, form)
generation = json.loads((place / "runs/run-chatml/model/generation_config.json").read_text())
check(generation["eos_token_id"] == [259, 257], f"the end of a turn ends a text: {generation}")
check((place / "runs/run-chatml/model/tokenizer_config.json").read_bytes() == (place / "bare/tokenizer_config.json").read_bytes(), "other settings stay")

# The run is asked as it was trained, and so is what it exports.
said = place.run(program, "generate", "runs/run-chatml", "--prompt", "a?", "--max-tokens", 12)
exported = place.run(program, "generate", "runs/run-chatml/model", "--prompt", "a?", "--max-tokens", 12)
raw = place.run(program, "generate", "runs/run-chatml/model", "--prompt", "a?", "--max-tokens", 12, "--raw")
check(said.split("tuned: ")[1] == exported and exported != raw, f"the run says {said!r}, its export {exported!r}, and without a template {raw!r}")

# An adapter brings the template, and the merged model has it.
train("adapter", "bare", "chatml", 'plugin = "lora"\nrank = 2')
model = place / "runs/run-chatml/model/chat_template.jinja"
check((place / "runs/adapter/adapter/chat_template.jinja").read_text() == model.read_text(), "an adapter's template")
place.run(program, "export", "runs/adapter", "--to", "merged", "--merge")
check_template(place / "merged", "chatml", "merged")

# The base's own template stays, byte for byte, where the data were written with it.
prepare("same", "own", None)
train("same-run", "own", "same")
for file in ("tokenizer_config.json", "generation_config.json"):
    check((place / "runs/same-run/model" / file).read_bytes() == (place / "own" / file).read_bytes(), f"{file} stays")
check(not list((place / "runs/same-run/model").glob("*.jinja")), "no template is added")

# A template from a file replaces it, with the special tokens that it was rendered with: here none, as tokenizer.json has no names for them.
prepare("file", "own/tokenizer.json", "other.jinja")
train("file-run", "own", "file")
check_template(place / "runs/file-run/model", "file", "a file")
check("chat_template" not in json.loads((place / "runs/file-run/model/tokenizer_config.json").read_text()), "the old template is gone")
(place / "long.jinja").write_text(OTHER + "{# " + "a long explanation " * 8000 + "#}")
prepare("long", "own", "long.jinja")
train("long-run", "own", "long")
check((place / "runs/long-run/model/chat_template.jinja").read_text() == (place / "long.jinja").read_text(), "a template of 150 KiB")
prepare("named", "own", "other.jinja")
train("named-run", "own", "named")
check_template(place / "runs/named-run/model", "named", "a file and a folder's tokens")

# A form is for models without a template: the base's stays, the form lies beside it, and the run says so.
prepare("beside", "own", "chatml")
said = train("beside-run", "own", "beside")
check("has its own chat template" in said and "trained_chat_template.jinja" in said, f"it is said: {said}")
folder = place / "runs/beside-run/model"
check(AutoTokenizer.from_pretrained(folder).chat_template == OWN, "the base's template stays")
tokenizer = AutoTokenizer.from_pretrained(folder)
rendered = {tokenizer.apply_chat_template(talk, tokenize=False, chat_template=(folder / "trained_chat_template.jinja").read_text()) for talk in TALKS}
check(rendered == texts_of("beside", tokenizer), "and the form beside it is that of the data")
