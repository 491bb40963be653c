"""The chat templates that model families come with, as their tokenizer_config.json has them (shortened where tools are concerned), and short ones in
the style of more families, written for the tests: FAMILIES.

TEMPLATES, each: (Jinja text, tokens, tokenizer kinds to try it on, what closes an answer, roles). roles: "system" when it takes a system message.
"""

ALTERNATE = "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"

# SmolLM2-135M-Instruct is tested with the text in its own GGUF file. Qwen/Qwen2.5-7B-Instruct, without tools:
QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

# meta-llama/Llama-2-7b-chat-hf
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" + ALTERNATE + "{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)

# meta-llama/Meta-Llama-3-8B-Instruct
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

# meta-llama/Llama-3.1-8B-Instruct, without tools
LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# mistralai/Mistral-7B-Instruct-v0.1 and v0.2, first editions (v0.1 puts a space after the end mark), then v0.2's second
def mistral_v1(answer):
    return (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" + ALTERNATE + "{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ " + answer + " }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
    )


MISTRAL_V2 = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- endif %}
{%- endfor %}
"""

# mistralai/Mistral-7B-Instruct-v0.3, without tools
MISTRAL_V3 = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""

# google/gemma-2b-it
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" + ALTERNATE + "{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)

# google/gemma-3-1b-it, for messages that are texts
GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""

# github.com/chujiezheng/chat_templates, alpaca.jinja
ALPACA = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'].strip() + '\\n\\n' %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = '' %}{% endif %}{{ bos_token + system_message }}{% for message in loop_messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'].strip() + '\\n\\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'].strip() + eos_token + '\\n\\n' }}{% endif %}"
    "{% if loop.last and message['role'] == 'user' and add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}{% endfor %}"
)

S = {"bos_token": "<s>", "eos_token": "</s>"}
L3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
G = {"bos_token": "<bos>", "eos_token": "<eos>"}
SENTENCEPIECE = ("llama2-first", "llama2-legacy")
TEMPLATES = {
    "qwen2.5": (QWEN25, {}, ("qwen2",), "<|im_end|>", True),
    "llama-2": (LLAMA2, S, SENTENCEPIECE, "</s>", True),
    "llama-3": (LLAMA3, L3, ("llama3",), "<|eot_id|>", True),
    "llama-3.1": (LLAMA31, L3, ("llama3",), "<|eot_id|>", True),
    "mistral-v0.1": (mistral_v1("message['content'] + eos_token + ' '"), S, SENTENCEPIECE, "</s>", False),
    "mistral-v0.2": (mistral_v1("message['content'] + eos_token"), S, SENTENCEPIECE, "</s>", False),
    "mistral-v0.2-second": (MISTRAL_V2, S, SENTENCEPIECE, "</s>", True),
    "mistral-v0.3": (MISTRAL_V3, S, SENTENCEPIECE, "</s>", True),
    "gemma": (GEMMA, G, ("gemma",), "<end_of_turn>", False),
    "gemma-3": (GEMMA3, G, ("gemma",), "<end_of_turn>", True),
    "alpaca": (ALPACA, S, SENTENCEPIECE, "</s>", True),
}


def by_role(system, user, assistant, prompt, before="", after=""):
    """The commonest way to write a template: what stands around the content, by role."""
    branches = "".join(
        "{%% %s message['role'] == '%s' %%}{{ %s }}" % ("elif" if i else "if", role, text)
        for i, (role, text) in enumerate((("system", system), ("user", user), ("assistant", assistant)))
    )
    return before + "{% for message in messages %}" + branches + "{% endif %}{% endfor %}" + after + "{% if add_generation_prompt %}{{ '" + prompt + "' }}{% endif %}"


MIXTRAL = mistral_v1("message['content'] + eos_token")
MISTRAL_V7 = """{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "system" %}
        {{- "[SYSTEM_PROMPT] " + message["content"] + "[/SYSTEM_PROMPT]" }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- else %}
        {{- raise_exception("Only user, system and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""
# The tools stand before the last question, as in Mistral's own third edition.
MISTRAL_TOOLS = """{%- set loop_messages = messages %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}{{- tool | tojson }}{% if not loop.last %}, {% endif %}{%- endfor %}
            {{- "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] + ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] in ["tool", "tool_results"] %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + '}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""
# Marks what the assistant wrote by itself.
WITH_GENERATION = """{% for message in messages %}{{ '<|' + message.role + '|>\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|end|>{% endgeneration %}
{% else %}{{ message.content }}<|end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""
LLAMA4 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set system_message = messages[0]['content']|trim %}
    {%- else %}
        {%- set system_message = messages[0]['content'][0]['text']|trim %}
    {%- endif %}
    {%- set messages = messages[1:] %}
    {{- "<|header_start|>system<|header_end|>\n\n" + system_message + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {{- '<|header_start|>' + message['role'] + '<|header_end|>\n\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for content in message['content'] %}
            {%- if content['type'] == 'image' %}{{- '<|image|>' }}{%- elif content['type'] == 'text' %}{{- content['text'] | trim }}{%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- "<|eot|>" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|header_start|>assistant<|header_end|>\n\n' }}{%- endif %}
"""
# DeepSeek-V3's and R1's, which leave what was thought out of earlier answers.
DEEPSEEK_R1 = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<\uff5cUser\uff5c>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<\uff5cAssistant\uff5c>' + content + '<\uff5cend\u2581of\u2581sentence\uff5c>'}}{%- endif %}{%- endfor -%}{% if add_generation_prompt %}{{'<\uff5cAssistant\uff5c><think>\\n'}}{% endif %}"""
CHATML_ANY = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
SMOLLM2 = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
QWEN_MATH = "{% if messages[0]['role'] != 'system' %}{{ \"<|im_start|>system\nPlease reason step by step, and don't forget to put the answer in \\\\boxed{}.<|im_end|>\n\" }}{% endif %}" + CHATML_ANY
PHI4 = by_role("'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'", "'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'", "'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'", "<|im_start|>assistant<|im_sep|>")
PHI3 = by_role("'<|system|>\n' + message['content'] + '<|end|>\n'", "'<|user|>\n' + message['content'] + '<|end|>\n'", "'<|assistant|>\n' + message['content'] + '<|end|>\n'", "<|assistant|>\n", after="{% if not add_generation_prompt %}{{ eos_token }}{% endif %}")
COMMAND_R = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'unused' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}""" + ALTERNATE + """{% endif %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"""
DEEPSEEK_V2 = by_role("message['content'] + '\n\n'", "'User: ' + message['content'] + '\n\n'", "'Assistant: ' + message['content'] + eos_token", "Assistant:", before="{{ bos_token }}")
OLMO2 = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
FALCON3 = by_role("'<|system|>\n' + message['content'] + '\n'", "'<|user|>\n' + message['content'] + '\n'", "'<|assistant|>\n' + message['content'] + ('\n' if not loop.last else '') + eos_token", "<|assistant|>\n")
ZEPHYR = by_role("'<|system|>\n' + message['content'] + eos_token", "'<|user|>\n' + message['content'] + eos_token", "'<|assistant|>\n' + message['content'] + eos_token", "<|assistant|>")
VICUNA = by_role("message['content'].strip() + ' '", "'USER: ' + message['content'].strip() + ' '", "'ASSISTANT: ' + message['content'].strip() + eos_token", "ASSISTANT:", before="{% if messages[0]['role'] != 'system' %}{{ \"A chat between a curious user and an artificial intelligence assistant. \" }}{% endif %}")
OPENCHAT = "{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}"
EXAONE = "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '[|system|][|endofturn|]\n' }}{% endif %}{{ '[|' + message['role'] + '|]' + message['content'] }}{% if message['role'] == 'user' %}{{ '\n' }}{% else %}{{ '[|endofturn|]\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
INTERNLM2 = "{{ bos_token }}" + CHATML_ANY
CHATGLM3 = "{% for message in messages %}{{ '<|' ~ message['role'] ~ '|>\n ' ~ message['content'] }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

# name: (Jinja text, tokens, what closes an answer)
FAMILIES = {
    "llama-4": (LLAMA4, L3, "<|eot|>"),
    "mixtral": (MIXTRAL, S, "</s>"),
    "mistral-v3-tools": (MISTRAL_TOOLS, S, "</s>"),
    "mistral-v7": (MISTRAL_V7, S, "</s>"),
    "qwen2": (SMOLLM2.replace("named SmolLM, trained by Hugging Face", "."), {}, "<|im_end|>"),
    "qwen2.5-math": (QWEN_MATH, {}, "<|im_end|>"),
    "smollm2": (SMOLLM2, {}, "<|im_end|>"),
    "yi": (CHATML_ANY, S, "<|im_end|>"),
    "internlm2": (INTERNLM2, S, "<|im_end|>"),
    "phi-3": (PHI3, {"eos_token": "<|endoftext|>"}, "<|end|>"),
    "phi-4": (PHI4, {}, "<|im_end|>"),
    "deepseek-v2": (DEEPSEEK_V2, S, "</s>"),
    "deepseek-r1": (DEEPSEEK_R1, S, "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    "command-r": (COMMAND_R, S, "<|END_OF_TURN_TOKEN|>"),
    "olmo-2": (OLMO2, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, "<|endoftext|>"),
    "falcon-3": (FALCON3, {"eos_token": "<|endoftext|>"}, "<|endoftext|>"),
    "zephyr": (ZEPHYR, S, "</s>"),
    "vicuna": (VICUNA, S, "</s>"),
    "openchat": (OPENCHAT, S, "<|end_of_turn|>"),
    "exaone": (EXAONE, {}, "[|endofturn|]"),
    "chatglm-3": (CHATGLM3, {}, ""),
    "generation-blocks": (WITH_GENERATION, {}, "<|end|>"),
}
