from __future__ import annotations

import pytest

from mfpo.errors import UserError
from mfpo.models.chat import render_prompt, render_response
from mfpo.models.load import load_processor
from mfpo.records import assistant_message, user_message


@pytest.fixture(scope="module")
def processor(tiny_llava):
    return load_processor(str(tiny_llava))


def test_prompt_ends_where_the_answer_begins(processor):
    assert render_prompt(processor, user_message("Describe it.")) == "USER: <image>\nDescribe it. ASSISTANT:"


def test_response_continues_the_prompt_and_ends_with_eos(processor):
    prompt = user_message("Describe it.")
    assert render_response(processor, prompt, assistant_message("A red mug.")) == " A red mug.</s>"


def test_plain_string_contents_and_null_keys_of_parquet(processor):
    prompt = [
        {
            "role": "user",
            "content": [{"type": "image", "text": None}, {"type": "text", "text": "Describe it."}],
        }
    ]
    answer = [{"role": "assistant", "content": "A red mug."}]
    assert render_prompt(processor, prompt) == "USER: <image>\nDescribe it. ASSISTANT:"
    assert render_response(processor, prompt, answer) == " A red mug.</s>"
    assert prompt[0]["content"][0] == {"type": "image", "text": None}, "the caller's messages are left alone"


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("<|end|>\n", " Yes.</s>"),
        ("</s>\n", " Yes.</s>"),
        ("", " Yes.</s>"),
        (" ", " Yes.</s>"),  # LLaVA-1.5 puts a space between turns
    ],
)
def test_whatever_the_template_puts_after_the_answer(tiny_llava, ending, expected):
    """An end marker that is not EOS stays; what follows EOS does not; a missing EOS is added."""
    processor = load_processor(str(tiny_llava))
    processor.chat_template = (
        "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %} {{ p.text }}"
        "{% endif %}{% endfor %}{% if m.role == 'assistant' %}" + ending + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    text = render_response(processor, user_message("Is it?", 0), assistant_message("Yes."))
    assert text.endswith("</s>") and text.count("</s>") == 1
    assert text.replace("<|end|>", "").replace("\n", "") == expected


def test_template_that_does_not_continue_its_prompt_falls_back_to_the_plain_answer(tiny_llava):
    processor = load_processor(str(tiny_llava))
    processor.chat_template = (
        "{% if add_generation_prompt %}[ask]{% else %}[whole]{% endif %}"
        "{% for m in messages %}{% for p in m.content %}{{ p.text or '' }}{% endfor %}{% endfor %}"
    )
    assert render_response(processor, user_message("Is it?", 0), assistant_message("Yes.")) == "Yes.</s>"


def test_template_kept_with_the_tokenizer(tiny_llava):
    processor = load_processor(str(tiny_llava))
    template, processor.chat_template = processor.chat_template, None
    processor.tokenizer.chat_template = template
    assert render_prompt(processor, user_message("Describe it.")) == "USER: <image>\nDescribe it. ASSISTANT:"


def test_no_template_at_all(tiny_llava):
    processor = load_processor(str(tiny_llava))
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        render_prompt(processor, user_message("Describe it."))
