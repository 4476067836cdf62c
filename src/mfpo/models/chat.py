"""Messages to text, by the model's own chat template."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from mfpo.errors import UserError
from mfpo.records import Messages, text_of

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def render_prompt(processor: ProcessorMixin, prompt: Messages) -> str:
    """The prompt as text, image placeholders included, up to where the answer begins.

    Args:
        processor: The model's processor.
        prompt: Messages that end with a user turn.

    Raises:
        UserError: The processor has no chat template.
    """
    return _apply(processor, prompt, add_generation_prompt=True)


def render_response(processor: ProcessorMixin, prompt: Messages, response: Messages) -> str:
    """What follows the rendered prompt when the assistant gives this answer; it ends with the EOS token.

    The template decides about white space and end markers. Where its rendering of the whole conversation does
    not continue its rendering of the prompt, the plain text of the answer is used.

    Args:
        processor: The model's processor.
        prompt: Messages that end with a user turn.
        response: The assistant's message.
    """
    head = render_prompt(processor, prompt)
    whole = _apply(processor, [*prompt, *response], add_generation_prompt=False)
    text = whole[len(head) :] if whole.startswith(head) else text_of(response)
    eos: str = processor.tokenizer.eos_token or ""
    if eos and eos in text:
        return text[: text.index(eos) + len(eos)]
    # Some templates put white space between turns; the answer's end follows the answer itself.
    return text.rstrip() + eos


def continues_prompt(processor: ProcessorMixin, prompt: Messages, response: Messages) -> bool:
    """Whether the template's rendering of the whole conversation begins with its rendering of the prompt."""
    head = render_prompt(processor, prompt)
    return _apply(processor, [*prompt, *response], add_generation_prompt=False).startswith(head)


def _apply(processor: ProcessorMixin, messages: Messages, *, add_generation_prompt: bool) -> str:
    # Some checkpoints keep the template with the tokenizer, where the processor does not look for it.
    template: Any = getattr(processor, "chat_template", None) or getattr(
        processor.tokenizer, "chat_template", None
    )
    if not template:
        raise UserError(
            "the processor has no chat template",
            where=type(processor).__name__,
            fix="save one with the checkpoint as chat_template.jinja",
        )
    rendered: Any = processor.apply_chat_template(
        _with_parts(messages),
        chat_template=template if isinstance(template, str) else None,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )
    return rendered


def _with_parts(messages: Messages) -> Messages:
    """Plain string contents as text parts; other keys that Parquet adds (such as ``text: None``) dropped."""
    messages = copy.deepcopy(messages)
    for message in messages:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        else:
            message["content"] = [
                {key: value for key, value in part.items() if value is not None}
                for part in message["content"]
            ]
    return messages
