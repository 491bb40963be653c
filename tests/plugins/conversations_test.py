"""Conversations and pairs of answers: random rows in the forms of other tools against what they mean, and random damage, of which every row is kept or told.

    conversations_test.py BUILD_FOLDER [ROUNDS]
"""
import json
import random
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from inputs import Reader
from tiny import Workplace, check

build, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 2
place = Workplace(build / "tests" / "conversations")
reader = Reader(place, build / "attune")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"town\": \"Ulm\"}"}}


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def prepare(layout, rows, kind=None, source="", file="rows.jsonl"):
    """The samples that are kept, and the rows told with their reasons; together they are all rows."""
    if file.endswith(".jsonl"):
        (place / file).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    kind = kind or ("preference" if layout == "preference" else "instruction")
    sound = {"messages": {"messages": [user("sound"), assistant("yes")]}, "preference": {"prompt": "sound", "chosen": "a", "rejected": "b"},
             "alpaca": {"instruction": "sound", "output": "yes"}, "prompt_completion": {"prompt": "sound", "completion": "yes"}}[layout]
    (place / "sound.jsonl").write_text(json.dumps(sound) + "\n")  # a split must not be empty
    reader.prepare(kind, [f'path = "{name}"\nlayout = "{layout}"\n{source}\n' for name in (file, "sound.jsonl")], 'template = "plain"')
    kept, reasons = reader.samples()[0], {}
    for name, row, reason in reader.told():
        check(name == file and row not in reasons, f"{name}, row {row} is told once: {reason}")
        reasons[row] = reason
    count = sum(bool(row) for row in rows)
    check(len(kept) - 1 + len(reasons) == count, f"{layout}: {len(kept) - 1} rows are kept, {len(reasons)} told, and {count} there are")
    return kept[:-1], reasons


decoded = reader.text


def written(messages):
    return "".join(f"### {one['role']}\n{one['content']}\n### end\n" for one in messages)


def learnt(sample):
    return decoded([token for token, mask in zip(sample["tokens"], sample["loss_mask"]) if mask])


refusals = []  # layout, row, reason: all are tried together


def refused(layout, row, reason):
    refusals.append((layout, row, reason))


def check_refusals():
    for layout in sorted({layout for layout, _, _ in refusals}):
        rows = [(row, reason) for other, row, reason in refusals if other == layout]
        _, reasons = prepare(layout, [row for row, _ in rows])
        for number, (row, reason) in enumerate(rows, 1):
            check(reason in reasons.get(number, "kept"), f"{json.dumps(row)} is told for '{reason}', not: {reasons.get(number)}")
    refusals.clear()


# --- Which messages are learnt

for key, off, on in [("weight", 0, 1), ("weight", 0.0, 1.0), ("train", False, True), ("training", False, True), ("trainable", False, True), ("loss", False, True), ("masked", True, False)]:
    row = [user("q"), assistant("WRONG", **{key: off}), user("sure?"), assistant("RIGHT", **{key: on})]
    kept, _ = prepare("messages", [{"messages": row}, {"messages": [{"from": {"user": "human", "assistant": "gpt"}[one["role"]], "value": one["content"],
                                                                     **{k: one[k] for k in one if k == key}} for one in row]}])
    check([learnt(one) for one in kept] == ["RIGHT\n### end"] * 2, f"{key}: {[learnt(one) for one in kept]}")
for key, value in [("weight", 0.5), ("weight", "0"), ("mask", 1), ("mask", False + 1), ("train_detail", [{"begin_offset": 0}]), ("refusal", "No."), ("prefix", True),
                   ("wieght", 0), ("loss_weight", 0), ("images", ["a.png"])]:
    refused("messages", {"messages": [user("q"), assistant("a", **{key: value})]}, "message")
refused("messages", {"messages": [user("q", train=True), assistant("a")]}, "cannot be honoured")
refused("messages", {"messages": [user("q"), assistant("a", train=True, weight=0)]}, "contradict")
refused("messages", {"messages": [user("q"), assistant("a", weight=0)]}, "no answer to train on")
accepted = []
for key, value in [("weight", None), ("train_detail", []), ("prefix", False), ("images", []), ("refusal", None), ("name", "Ada"), ("id", 7), ("anything", None)]:
    accepted.append({"messages": [user("q"), assistant("a", **{key: value})]})
check(not prepare("messages", accepted)[1], "keys that say nothing change nothing")
ignored = []
for key, value in [("images", ["x"]), ("documents", [{"text": "x"}]), ("chat_template_kwargs", {"enable_thinking": False}), ("mask", "User"), ("weight", 2), ("kto_tag", True),
                   *(("label", verdict) for verdict in (False, 0, 1.0, "False", "true"))]:
    refused("messages", {"messages": [user("q"), assistant("a")], key: value}, "cannot be honoured")
    ignored.append({"messages": [user("q"), assistant("a")], key: value})
ignored.append({"messages": [user("q"), assistant("a", wieght=0, mask=True)]})
keys = ["images", "documents", "chat_template_kwargs", "mask", "weight", "kto_tag", "label", "wieght"]
check(not prepare("messages", ignored, source=f"ignore = {json.dumps(keys)}")[1], "ignore leaves them out")
check_refusals()
print("ok which messages are learnt", flush=True)

# --- What a named form cannot write is told; roles, parts and absent content

for message in (assistant(None, tool_calls=[CALL]), {"role": "assistant", "tool_calls": [CALL]}, assistant("", function_call=CALL["function"]),
                {"from": "function_call", "value": json.dumps(CALL["function"])}, assistant("a", reasoning_content="hm")):
    refused("messages", {"messages": [user("q"), message, {"role": "tool", "content": "dry"}, assistant("a")]}, "does not support")
refused("messages", {"messages": [user("q"), assistant("a")], "tools": [{"type": "function"}]}, "does not support tools")
refused("messages", {"messages": [user("q"), assistant("a")], "tools": "[{]"}, "damaged tools")
for message in (assistant(None), {"role": "assistant"}, user(None), {"role": "tool"}):
    refused("messages", {"messages": [user("q"), message, assistant("a")]}, "without content")
for content in ([{"type": "image_url", "image_url": {"url": "x"}}], [{"type": "text", "text": "a"}, {"type": "input_audio"}], {"a": 1}, ["a"]):
    refused("messages", {"messages": [user(content), assistant("a")]}, "content that is not text")
kept, _ = prepare("messages", [{"messages": [{"role": "developer", "content": "Rhyme."}, user([{"type": "text", "text": "Two "}, {"type": "text", "text": "parts"}]), assistant("a"),
                                             {"role": "function", "name": "f", "content": "dry"}, assistant("b")]}])
check(decoded(kept[0]["tokens"]) == written([{"role": "developer", "content": "Rhyme."}, user("Two parts"), assistant("a"), {"role": "tool", "content": "dry"}, assistant("b")]),
      decoded(kept[0]["tokens"]))
check_refusals()
print("ok roles and contents", flush=True)

# --- Prompts and completions as messages, histories

kept, _ = prepare("prompt_completion", [{"prompt": [user("q"), assistant("earlier"), user("r")], "completion": [assistant("a")]}])
check(learnt(kept[0]) == "a\n### end", "the completion alone is learnt")
kept, _ = prepare("alpaca", [{"instruction": "r", "input": "", "output": "a", "history": [["q", "earlier"]], "system": "s"}])
check(decoded(kept[0]["tokens"]) == written([{"role": "system", "content": "s"}, user("q"), assistant("earlier"), user("r"), assistant("a")]), "history is a conversation")
kept, _ = prepare("alpaca", [{"instruction": "", "input": "text", "output": "a"}])
check(decoded(kept[0]["tokens"]) == written([user("text"), assistant("a")]), "an input without an instruction is the prompt")
for verdict in (True, 0, "False"):
    refused("prompt_completion", {"prompt": "q", "completion": "a", "label": verdict}, "cannot be honoured")
check(not prepare("prompt_completion", [{"prompt": "q", "completion": "a", "label": "maths"}])[1], "another label is harmless")
check_refusals()

# --- Pairs


def shared_beginning(chosen, rejected):
    """TRL's extract_prompt."""
    index = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    return chosen[:index], chosen[index:], rejected[index:]


def random_turns(rng, count, first):
    names = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": names[i % 2], "content": f"{names[i % 2]} {rng.randint(0, 10**6)}"} for i in range(count)]


def random_pair(rng):
    """A row in one of the layouts in use, and its context and answers."""
    context = [{"role": "system", "content": "Be brief."}] * rng.randint(0, 1) + random_turns(rng, rng.choice([1, 1, 3, 5]), "user")
    chosen, rejected = random_turns(rng, rng.choice([1, 1, 3]), "assistant"), random_turns(rng, rng.choice([1, 1, 3]), "assistant")
    first = next(one["content"] for one in context if one["role"] == "user")
    rows = {
        "whole": {"chosen": context + chosen, "rejected": context + rejected},
        "binarized": {"prompt": first, "messages": context + chosen, "chosen": context + chosen, "rejected": context + rejected, "score_chosen": 1.0},
        "prompt repeated": {"prompt": context, "chosen": context + chosen, "rejected": context + rejected},
        "explicit": {"prompt": context, "chosen": chosen, "rejected": rejected},
        "messages": {"messages": context, "chosen": chosen, "rejected": rejected},
        "messages with the answer": {"messages": context + chosen, "chosen": chosen, "rejected": rejected},
        "openai": {"input": {"messages": context}, "preferred_output": chosen, "non_preferred_output": rejected},
    }
    if len(context) == 1 and len(chosen) == len(rejected) == 1:
        rows["texts"] = {"prompt": first, "chosen": chosen[0]["content"], "rejected": rejected[0]["content"]}
        rows["share_gpt"] = {"conversations": [{"from": "human", "value": first}], "chosen": {"from": "gpt", "value": chosen[0]["content"]},
                             "rejected": {"from": "gpt", "value": rejected[0]["content"]}}
    return rows[rng.choice(list(rows))], shared_beginning(context + chosen, context + rejected)


def answer_of(messages):
    """What follows the opening of the assistant's turn, and what of it is learnt."""
    opening = "### assistant\n"
    whole = written(messages)[len(opening):].removesuffix("\n")
    return whole, "".join(f"{one['content']}\n### end" for one in messages if one["role"] == "assistant")


def check_pair(sample, context, chosen, rejected, what):
    check(decoded(sample["prompt"]) == written(context) + "### assistant\n", f"{what}: the prompt is the shared beginning, not {decoded(sample['prompt'])!r}")
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        whole, targets = answer_of(messages)
        check(decoded(sample[name]) == whole, f"{what}: {name} is {whole!r}, not {decoded(sample[name])!r}")
        got = decoded([token for token, mask in zip(sample[name], sample[f"{name}_mask"]) if mask])
        check(got == targets, f"{what}: of {name} the assistant's turns are learnt, not {got!r}")


for seed in range(rounds):
    rng = random.Random(seed)
    pairs = [random_pair(rng) for _ in range(60)]
    kept, reasons = prepare("preference", [row for row, _ in pairs])
    check(not reasons, f"sound pairs are kept, not told: {reasons}")
    for sample, (row, parts) in zip(kept, pairs):
        check_pair(sample, *parts, json.dumps(row))

different = "different contexts"
refused("preference", {"chosen": [user("left"), assistant("a")], "rejected": [user("right"), assistant("b")]}, different)
refused("preference", {"chosen": [user("q"), assistant("a"), user("left"), assistant("b")], "rejected": [user("q"), assistant("a"), user("right"), assistant("c")]}, different)
refused("preference", {"chosen": [user("q"), assistant("a")], "rejected": [assistant("b")]}, different)
for prompt in ("other", [user("other")], [user("q"), assistant("else")]):
    refused("preference", {"prompt": prompt, "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}, different)
refused("preference", {"messages": [user("other"), assistant("a")], "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}, different)
refused("preference", {"messages": [user("q"), assistant("third")], "chosen": "a", "rejected": "b"}, different)
refused("preference", {"prompt": "other", "messages": [user("q")], "chosen": "a", "rejected": "b"}, different)
refused("preference", {"chosen": [user("q"), assistant("a"), user("r"), assistant("b")], "rejected": [user("q"), assistant("a")]}, "an answer is missing")
refused("preference", {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("a")]}, "the same")
refused("preference", {"prompt": "q", "chosen": "a", "rejected": assistant("b", weight=0)}, "no rejected answer to train on")
check_refusals()
kept, _ = prepare("preference", [{"prompt": "q", "chosen": [assistant("not", weight=0), user("r"), assistant("this")], "rejected": "b"}])
check(decoded([token for token, mask in zip(kept[0]["chosen"], kept[0]["chosen_mask"]) if mask]) == "this\n### end", "of a pair, too, what is not to be learnt is no target")
print("ok pairs", flush=True)

# --- Random damage: every row is kept or told


def junk(rng):
    return rng.choice([None, True, 0, 1, -1.5, "", "text", "{", "[]", [], {}, [1], [[]], [{}], {"a": 1}, [{"role": "user"}], "\ud83d", "\u2028", [CALL], {"function": CALL}])


def damaged(rng, value):
    """One place in it is another value, is gone, or is there twice."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if change < 0.3:
            return value | {rng.choice(["weight", "train", "mask", "name", "tool_calls", "function_call", "tools", "system", "from", "role", "content", "prompt", "messages", "new"]): junk(rng)}
        return value | {key: damaged(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return value[:i] + rng.choice([[damaged(rng, value[i])], [], [value[i], value[i]]]) + value[i + 1:]
    return junk(rng)


def broken(rng, line):
    """The text itself is damaged. It stays one line that is not blank."""
    i, j = sorted(rng.sample(range(len(line)), 2))
    line = rng.choice([line[:j], line[:i] + line[j:], line[:i] + rng.choice(["\\ud800", "NaN", "\x01", '"', "}", ",", "\u2028"]) + line[i:]])
    return line if line.strip() else "x"


def random_rows(rng, layout):
    for _ in range(60):
        row = random_pair(rng)[0] if layout == "preference" else {
            "messages": {"messages": random_turns(rng, rng.randint(1, 5), "user"), "system": "s"},
            "alpaca": {"instruction": "do", "input": "this", "output": "done", "history": [["q", "a"]]},
            "prompt_completion": {"prompt": random_turns(rng, 1, "user"), "completion": "text", "tools": [CALL]}}[layout]
        for _ in range(rng.randint(0, 3)):
            row = damaged(rng, row)
        line = json.dumps(row)
        yield broken(rng, line) if rng.random() < 0.2 and len(line) > 1 else line


for seed in range(rounds):
    rng = random.Random(100 + seed)
    for layout in ("messages", "preference", "alpaca", "prompt_completion"):
        rows = list(random_rows(rng, layout))
        kept, reasons = prepare(layout, rows[:len(rows) // 2] + [""] + rows[len(rows) // 2:])
        check(seed > 0 or kept and reasons, f"some of {layout} are kept, and some told")
print("ok damage", flush=True)

# A table gives every message all keys; those that are null are absent.
rows = [{"messages": [user("q", tool_calls=None, weight=None), assistant("WRONG", weight=0), user("r"), assistant("RIGHT", weight=1)], "tools": None}] * 3
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), place / "rows.parquet")
kept, _ = prepare("messages", rows, file="rows.parquet")
check([learnt(one) for one in kept] == ["RIGHT\n### end"] * 3, "Parquet gives what JSON Lines give")

# A source of which every row is told does not end the work, and is not lost either.
(place / "bad.jsonl").write_text('{"messages": 1}\n{"messages": []}\n')
(place / "sound.jsonl").write_text(json.dumps({"messages": [user("q"), assistant("a")]}) + "\n")
reader.prepare("instruction", [f'path = "{name}.jsonl"\nlayout = "messages"\n' for name in ("bad", "sound")], 'template = "plain"')
check(len(reader.samples()[0]) == 1 and [row for _, row, _ in reader.told()] == [1, 2], "both rows of the bad source are told")
print("ok tables and bad sources", flush=True)
