"""Fine-tunes LoRA adapters that call tools and proves what they can do.

Read the packages in the order in which they build on each other; those beside each other know nothing of one another:

    core -> notation | refusals -> chat -> config -> run -> toy -> models -> data -> tracking | plan
    -> training | multi_lora -> search | submit | doctor | status -> cli -> __main__

`evals` builds on them and `jobs` on both. A later package may import an earlier one, never the other way round
(`lint-imports` checks it).
"""
