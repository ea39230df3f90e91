"""Chat templates beside transformers, in their sandbox, and what the lint finds."""

import json

import pytest
from pretrained_models import CHATML, byte_level_tokenizer

from lilo_jax.errors import UsageError
from lilo_jax.tokenizers import TokenizerJson, end_id, lint, prompt_ids
from lilo_jax.tokenizers.template import ChatTemplate

transformers = pytest.importorskip("transformers")

LLAMA2 = """{% if messages[0]['role'] == 'system' %}
{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}
{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}
{% for message in turns %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' }}
{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}
{% endfor %}"""
LLAMA3 = """{{ bos_token }}{% for message in messages -%}
<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>
{%- endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
MISTRAL = """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- "[INST] " + message.content + "[/INST]" }}
    {%- elif message.role == "assistant" %}
        {{- " " + message.content + eos_token }}
    {%- else %}{% continue %}
    {%- endif %}
{%- endfor %}"""
ZEPHYR = """{% for message in messages %}
{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
DEEPSEEK = """{% set ns = namespace(system='') %}{% for m in messages %}
{%- if m.role == 'system' %}{% set ns.system = m.content %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system }}{% for m in messages %}
{%- if m.role == 'user' %}{{ '<|User|>' + m.content }}{% elif m.role == 'assistant' %}
{%- generation %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"""
TOOLS = """{% for m in messages %}{{ m | tojson }}{{ m.content | tojson(indent=2) }}
{% endfor %}"""
NONE = """{% if tools is not none %}tools{% endif %}{% if documents is none %}no documents{% endif %}
{% generation %}{% set x = 'inner' %}{{ messages[0].content }}{% endgeneration %}{{ x }}
{{ messages | tojson(ensure_ascii=False, separators=(',', ':'), sort_keys=true) }}"""
TEMPLATES = {
    "chatml": CHATML, "llama2": LLAMA2, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "zephyr": ZEPHYR,
    "deepseek": DEEPSEEK, "tojson": TOOLS, "none": NONE,
}  # fmt: skip

USER, MORE = {"role": "user", "content": " What is 2 + 2? <b>é</b> "}, {"role": "user", "content": 'And "3" + 3?\n'}
ANSWER = {"role": "assistant", "content": "<think>two</think> It is 4.  "}
SYSTEM = {"role": "system", "content": "Be brief & exact."}
CONVERSATIONS = [[USER], [USER, ANSWER], [USER, ANSWER, MORE], [SYSTEM, USER], [SYSTEM, USER, ANSWER, MORE]]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def reference():
    tokenizer = byte_level_tokenizer(["<s>", "</s>"], 300)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **TOKENS)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("conversation", range(len(CONVERSATIONS)))
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_in_transformers(name, conversation, add, reference):
    messages = CONVERSATIONS[conversation]
    template = ChatTemplate(TEMPLATES[name], tuple(TOKENS.items()))
    try:
        expected = reference.apply_chat_template(
            messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=add
        )
    except Exception as error:
        assert name == "gemma"
        with pytest.raises(UsageError, match=str(error)):
            template.render(messages, add_generation_prompt=add)
        return
    assert expected
    assert template.render(messages, add_generation_prompt=add) == expected


def test_a_template_knows_the_date():
    year = ChatTemplate("{{ strftime_now('%Y') }}").render([USER], add_generation_prompt=True)
    assert len(year) == 4
    assert year > "2020"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ messages[0].update(role='system') }}", "SecurityError"),
        ("{% for %}", "not valid jinja2"),
        ("{{ raise_exception('only\nhumans') }}", "only humans"),
        ("{{ messages[0].content.nothing() }}", "UndefinedError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% include '/etc/passwd' %}", "chat template refuses"),
    ],
)
def test_what_a_template_may_not_do_is_one_line(source, says):
    with pytest.raises(UsageError, match=says) as caught:
        ChatTemplate(source).render([{"role": "user", "content": "x"}], add_generation_prompt=True)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- prompts and lint
def tokenizer_of(template, *, specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), **settings):
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} | settings
    if template is not None:
        config["chat_template"] = template
    files = {
        "tokenizer.json": byte_level_tokenizer(list(specials), 300).to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    return TokenizerJson(files)


def test_a_clean_template_gives_no_warning():
    assert lint(tokenizer_of(CHATML)) == []


def test_a_chat_prompt_is_the_rendered_turn():
    tokenizer = tokenizer_of(CHATML)
    text = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    ids = prompt_ids(tokenizer, "2+2?", chat=True)
    assert ids == tokenizer.encode(text)
    assert ids[0] == 1
    assert tokenizer.decode(ids) == text
    assert prompt_ids(tokenizer, "2+2?") == tokenizer.encode("2+2?")


def test_begin_ids_are_added_once():
    without, with_it = CHATML, "{{ bos_token }}" + CHATML
    for template in (without, with_it):
        tokenizer = tokenizer_of(template, bos_token="<|endoftext|>", add_bos_token=True)
        ids = prompt_ids(tokenizer, "2+2?", chat=True)
        assert ids[:2] == [0, 1]
        assert ids.count(0) == 1
        assert prompt_ids(tokenizer, "x")[0] == 0


def test_fine_tuning_ends_a_response_as_the_template_does():
    """Llama 3 and Gemma list the end of a text before the end of a turn."""
    both = tokenizer_of(CHATML)
    both.end_ids = (0, 2)
    assert end_id(both) == 0
    assert end_id(both, chat=True) == 2
    only_text = tokenizer_of(CHATML, eos_token="<|endoftext|>")
    assert end_id(only_text, chat=True) == 0


def test_without_a_template_there_is_no_chat():
    with pytest.raises(UsageError, match="no chat template"):
        prompt_ids(tokenizer_of(None), "x", chat=True)


OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
OPEN_ENDED = """{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}
{% if add_generation_prompt %} assistant:{% endif %}"""


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        ({"template": CHATML.replace(OPENING, "")}, "writes nothing before an assistant's answer"),
        ({"template": CHATML, "eos_token": "<|endoftext|>"}, "followed by '<|im_end|>' (2), which is no end token"),
        (
            {"template": CHATML, "specials": ("<|endoftext|>", "<|im_end|>")},
            "<|im_start|> in the rendered prompt is no",
        ),
        ({"template": CHATML.replace("<|im_start|>", "<｜im_start｜>")}, "<｜im_start｜> in the rendered prompt is no"),
        ({"template": OPEN_ENDED}, "writes nothing after an assistant's answer"),
        (
            {
                "template": "{{ bos_token }}{{ bos_token }}" + CHATML,
                "bos_token": "<|endoftext|>",
                "add_bos_token": True,
            },
            "begin token twice",
        ),
    ],
    ids=["no generation prompt", "end of turn", "marker", "wide marker", "no end of turn", "twice"],
)
def test_each_warning(tokenizer, says):
    found = lint(tokenizer_of(**tokenizer))
    assert any(says in warning for warning in found), found


def test_what_is_no_mistake_gives_no_warning():
    """Letters in brackets are what Llama 2 was trained on."""
    template = CHATML.replace("{{ message.content }}", "[INST] [/INST] {{ message.content }}")
    assert lint(tokenizer_of(template)) == []


def test_a_template_that_refuses_an_answer_is_a_warning():
    template = "{% if messages | length > 1 %}{{ raise_exception('one question only') }}{% endif %}" + CHATML
    (found,) = lint(tokenizer_of(template))
    assert "one question only" in found


def test_named_templates_and_files(tmp_path):
    listed = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML}]
    assert tokenizer_of(listed).chat.source == CHATML
    files = {
        "tokenizer.json": byte_level_tokenizer(["<|im_end|>"], 300).to_str().encode(),
        "tokenizer_config.json": json.dumps({"eos_token": "<|im_end|>", "chat_template": "older"}).encode(),
        "chat_template.jinja": b"newer",
    }
    assert TokenizerJson(files).chat.source == "newer"
