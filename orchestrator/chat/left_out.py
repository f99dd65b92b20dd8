"""Why a good sample cannot be trained on under a base's chat template."""

from typing import Literal

LeftOutReason = Literal[
    "too_long",
    "nothing_to_learn",
    "control_token_in_text",
    "prompt_differs",
    "no_end_of_turn",
    "template_refuses",
]
"""Why a good sample cannot be trained on.

`too_long`: more tokens than `data.max_length`, and no shorter end where `data.overlong` is `shorten`.
`nothing_to_learn`: the assistant says nothing that carries loss.
`control_token_in_text`: a text holds a token that the template or a parser would read as structure.
`prompt_differs`: the row does not begin with the tokens that evaluation would send for its last turn.
`no_end_of_turn`: the last turn holds no token at which vLLM stops.
`template_refuses`: the chat template raised an error, such as roles that must alternate.
"""


class RowLeftOut(Exception):
    """A sample that this template cannot show truly. Caught where rows are collected, never shown as a traceback."""

    def __init__(self, reason: LeftOutReason, detail: str) -> None:
        self.reason: LeftOutReason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")
