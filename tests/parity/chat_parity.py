"""Random conversations through chat templates: what transformers' apply_chat_template makes of them, for chat_parity.cpp to compare with.

    chat_parity.py PROGRAM TEMPLATES FOLDER COUNT SEED

PROGRAM: test_chat_parity; TEMPLATES: a folder of .jinja files; FOLDER: where the rows go; COUNT: conversations for each template.
"""

import datetime
import json
import os
import pathlib
import random
import re
import subprocess
import sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import transformers.utils.chat_template_utils as reference
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import chat_expressions
import chat_templates


class Fixed(datetime.datetime):
    """The date that templates see: a data set must not depend on the day it is made."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


reference.datetime = Fixed

SAID = ["Hi", "  What is HDF5?\n", "", "\u00dcn\u00efcode \U0001f642 \u4e2d\u6587", "two\n\nparagraphs", "x = [1, 2]  # 'code' \"q\" <b>&</b>", "\u3000wide\u00a0", "<think>\nhm\n</think>\n\nyes", "a\tb", "[INST] no [/INST]", "{{ braces }}"]
TOOLS = [
    {"type": "function", "function": {"name": "get_w\u00e9ather", "description": "Weather 'now' & then", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The <city>"}, "days": {"type": "integer", "default": 1}, "unit": {"type": "string", "enum": ["c", "f"]}, "deep": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}},
]
ARGUMENTS = [{"city": "\u00d6n\"x", "days": 2, "f": 1.5, "ok": True, "n": None, "l": [1, "a"]}, {}, '{"city": "x"}']
# What closes an answer under the fetched templates. Those not named here have no closing mark, or one that depends on what follows.
CLOSING = {
    "<|im_end|>": "Bielik Kimi-K2 LFM2-8B LFM2.5-Instruct MiMo NVIDIA-Nemotron-3 Qwen StepFun openbmb moonshotai HuggingFaceTB",
    "</s>": "Mistral mistralai unsloth-mistral",
    "<|eot_id|>": "meta-llama meetkai-functionary-medium-v3.2",
    "<\uff5cend\u2581of\u2581sentence\uff5c>": "deepseek llama-cpp-deepseek Spark",
    "<|end_of_text|>": "ibm-granite",
    "<end_of_turn>": "google-gemma-2",
    "<turn|>": "google-gemma-4",
    "<|end|>": "microsoft-Phi upstage",
    "<seed:eos>": "ByteDance",
    "<|message_sep|>": "GigaChat",
    "<|END_OF_TURN_TOKEN|>": "Cohere2MoE",
    "<end_of_sentence>": "MiniMax-M1",
    "[e~[": "MiniMax-M2 MiniMax-M3",
}


def closing_of(name):
    return next((mark for mark, names in CLOSING.items() if any(name.startswith(n) for n in names.split())), None)


def conversation(rng, plain):
    messages = []
    if rng.random() < 0.4:
        messages.append({"role": rng.choice(["system", "system", "developer"]) if not plain else "system", "content": rng.choice(SAID)})
    for k in range(rng.randrange(1, 7)):
        if k % 2 == 0 or (not plain and rng.random() < 0.05):
            messages.append({"role": "user", "content": rng.choice(SAID)})
            continue
        answer = {"role": "assistant", "content": rng.choice(SAID)}
        messages.append(answer)
        if not plain and rng.random() < 0.3:
            answer["tool_calls"] = [{"id": "abcdefgh1", "type": "function", "function": {"name": "get_w", "arguments": rng.choice(ARGUMENTS)}}]
            answer["content"] = rng.choice([None, "", answer["content"]])
            if rng.random() < 0.8:
                messages.append({"role": "tool", "content": rng.choice(SAID), "tool_call_id": "abcdefgh1", "name": "get_w"})
        elif not plain and rng.random() < 0.3:
            answer[rng.choice(["reasoning_content", "thinking", "reasoning"])] = rng.choice(SAID)
    if not plain and rng.random() < 0.1:
        messages[-1]["content"] = [{"type": "text", "text": rng.choice(SAID)}]
    return messages


class Oracle:
    def __init__(self, name, jinja, tokens, closing):
        backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
        self.name, self.jinja, self.closing = name, jinja, closing
        self.marks = re.search(r"\{%-?\s*generation", jinja) is not None

    def render(self, messages, tools, asks):
        return self.tokenizer.apply_chat_template(messages, tools=tools, chat_template=self.jinja, tokenize=False, add_generation_prompt=asks)

    def try_render(self, *arguments):
        try:
            return self.render(*arguments)
        except Exception:
            return None

    def answers(self, messages, tools, whole):
        """The text of each answer; None where this cannot be told by comparing beginnings."""
        if self.marks:
            kept = [{k: v for k, v in m.items() if v is not None} for m in messages]
            tokens = self.tokenizer.special_tokens_map
            _, spans = reference.render_jinja_template([kept], tools=tools, chat_template=self.jinja, return_assistant_tokens_mask=True, **tokens)
            return [whole[begin:end] for begin, end in spans[0]]
        if not self.closing:
            return None
        found = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.try_render(messages[:i], tools, True) if i else None
            after = whole if i + 1 == len(messages) else self.try_render(messages[: i + 1], tools, False)
            if not before or not after or not whole.startswith(before) or not whole.startswith(after) or not after.startswith(before):
                return None
            end = after.rfind(self.closing, len(before))
            if end < 0:
                return None
            found.append(whole[len(before) : end + len(self.closing)])
        return found

    def loses(self, messages, tools, asks, whole):
        """Whether the template silently leaves out a part: the text is the same without it. Of reasoning the last answer of a conversation counts."""
        def same(changed, tools=tools, count=len(messages), asks=asks, wanted=whole):
            return self.try_render(changed[:count], tools, asks) == wanted

        def changed(i, **keys):
            return [*messages[:i], {k: v for k, v in (messages[i] | keys).items() if v is not None}, *messages[i + 1 :]]

        if tools and same(messages, tools=None):
            return True
        for i, message in enumerate(messages):
            said = message.get("content")
            if message["role"] != "assistant":
                if isinstance(said, str) and said.strip() and same(changed(i, content=said + "MORE")):
                    return True
                continue
            if message.get("tool_calls") and same(changed(i, tool_calls=None)):
                return True
            name = next((name for name in ("reasoning_content", "thinking", "reasoning") if (message.get(name) or "").strip()), None)
            if not name or not same(changed(i, **{name: None})):
                continue
            last = self.try_render(messages[: i + 1], tools, False)
            if last is not None and same(changed(i, **{name: None}), count=i + 1, asks=False, wanted=last):
                return True
        return False

    def row(self, messages, tools, asks):
        row = {"name": self.name, "jinja": self.jinja, "tokens": self.tokenizer.special_tokens_map, "messages": messages, "tools": tools, "asks": asks}
        try:
            row["text"] = self.render(messages, tools, asks)
        except Exception as error:
            row["refused"] = str(error) if type(error).__name__ == "TemplateError" else ""
            return row
        row["loses"] = self.loses(messages, tools, asks, row["text"])
        row["answers"] = None if asks else self.answers(messages, tools, row["text"])
        return row


def rows(templates, count, seed):
    rng = random.Random(seed)
    fetched = {path.stem: (path.read_text(encoding="utf-8"), chat_templates.S, closing_of(path.stem)) for path in sorted(templates.glob("*.jinja"))}
    kept = {name: (jinja, tokens, closing) for name, (jinja, tokens, _, closing, _) in chat_templates.TEMPLATES.items()}
    for name, (jinja, tokens, closing) in (fetched | kept | chat_templates.FAMILIES).items():
        oracle = Oracle(name, jinja, tokens, closing)
        for i in range(count):
            yield oracle.row(conversation(rng, plain=i % 2 == 0), TOOLS if i % 4 == 3 else None, asks=rng.random() < 0.3)
    for i, expression in enumerate(chat_expressions.EXPRESSIONS):
        yield Oracle(f"expression {i}", chat_expressions.VARIABLES + expression, chat_templates.S, None).row([{"role": "user", "content": ""}], None, False)


def main():
    program, templates, folder, count, seed = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in rows(templates, count, seed):
            file.write(json.dumps(row) + "\n")
    sys.exit(subprocess.run([program, str(folder / "rows.jsonl"), str(count)]).returncode)


main()
