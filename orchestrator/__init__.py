"""Fine-tunes LoRA adapters that call tools and proves what they can do.

The data's path is the reading order: config -> data -> models -> adapters -> training -> search -> submit -> cli.
A later module may import an earlier one, never back; `evals` imports from here, `jobs` from both (`lint-imports`
checks it).
"""
