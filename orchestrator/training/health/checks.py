"""What the recorded numbers of a training say of its health. Pure functions of the series: docs/health.md.

Each check looks at a trial so far and returns what it finds, or None. Thresholds stand at the top with their sources.
"""

import math
from collections.abc import Callable
from statistics import fmean, median

from orchestrator.core.records import Finding, FindingName
from orchestrator.training.health.series import Series

GUIDES = "LoRA guides for tool-calling models: gradient norm 0.2 to 2.0 is good, 0.0 is frozen, above 10 exploding"
READING = "LoRA guides: falling then rising overfits; stuck near 3.0 does not learn; eval within 0.1 to 0.3 of train"
HERE = "set where seeded faults and healthy trainings part (benchmarks/health.py)"

FROZEN_NORM = 1e-9
EXPLODING_NORM = 10.0
FEW_STEPS = 4
"""Steps that are too few to judge a mean by."""
RISE, RISE_BY = 1.15, 0.25
"""A train loss above this multiple of the start, and by so much, diverges."""
FLAT = 0.02
"""A loss that has fallen by less than this share since the start has not moved."""
STUCK_LOSS = 2.5
"""A loss that stays above this has not learned: a good start is 2.5 to 3.5, a good end 0.8 to 1.2."""
STEADY = 0.01
"""Evaluations that differ by less than this share stand still."""
OVERFIT = 0.05
"""An eval loss this share above its best, while the train loss falls, is overfitting."""
GAP, GAP_RATIO = 0.3, 2.0
"""Eval above train by more than 0.3 and by this factor: the training data are memorised."""
SPIKE, SPIKE_NORM = 2.0, 5.0
"""A loss of this multiple of those before it, with a gradient norm of this multiple, is a spike."""
FLAT_ACCURACY = 0.01
LOW_ACCURACY = 0.75
FEW_ROWS = 20
"""Rows of the eval set below which chance decides between trials."""
WORSE_THAN_A_GUESS = 1.15
"""A base that gives its rows a loss of this multiple of a guess's was made for others."""
EDGE = 0.1
"""Share of a range, on its scale, that counts as its edge."""


def not_finite(its: Series) -> Finding | None:
    """NaN or infinity in a loss or gradient."""
    for point in its.steps:
        what = "train loss" if not math.isfinite(point.loss) else "gradient norm"
        if not math.isfinite(point.loss) or (point.grad_norm is not None and math.isnan(point.grad_norm)):
            return its.found(
                "not_finite",
                f"The {what} was not finite at step {point.step}.",
                "Lower train.learning_rate or raise train.warmup_ratio; if it comes at once, look at the row of that "
                "step and at model.dtype (float16 overflows where bfloat16 does not).",
                "any NaN; an infinite loss",
                "no training recovers from it",
            )
    return None


def frozen_adapter(its: Series) -> Finding | None:
    """A gradient norm of zero."""
    latest = [point.grad_norm for point in its.steps[-FEW_STEPS:]]
    if len(latest) < FEW_STEPS or any(norm is None or abs(norm) > FROZEN_NORM for norm in latest):
        return None
    return its.found(
        "frozen_adapter",
        f"The gradient norm was 0.0 in each of the last {FEW_STEPS} steps: nothing is trained.",
        "Check that lora.target_modules names layers of this base, and that the data have supervised tokens.",
        f"gradient norm 0.0 in {FEW_STEPS} steps on end",
        GUIDES,
    )


def exploding_gradient(its: Series) -> Finding | None:
    """A gradient norm above 10 that does not come with learning."""
    after = [point for point in its.steps if point.step > its.setting.warmup_steps]
    latest = [point for point in after[-2 * FEW_STEPS :] if point.grad_norm is not None]
    if len(latest) < FEW_STEPS or its.start_loss is None:
        return None
    norm, loss = median(point.grad_norm or 0.0 for point in latest), median(point.loss for point in latest)
    if not norm > EXPLODING_NORM or loss < (1 - 5 * FLAT) * its.start_loss:
        return None
    return its.found(
        "exploding_gradient",
        f"The gradient norm is {norm:.3g} (median of the last {len(latest)} steps), and the loss does not fall "
        f"({its.start_loss:.3g} at the start, {loss:.3g} now).",
        "Lower train.learning_rate or lora.alpha, or raise train.warmup_ratio.",
        f"median above {EXPLODING_NORM:g}, while the loss is not {5 * FLAT:.0%} below its start",
        GUIDES,
    )


def diverging(its: Series) -> Finding | None:
    """A train loss that has risen above where it started, or an eval loss far above its best."""
    latest = [point.loss for point in its.steps if point.step > its.setting.warmup_steps][-FEW_STEPS:]
    start = its.start_loss
    if len(latest) == FEW_STEPS and start is not None and min(latest) > RISE * start and min(latest) > start + RISE_BY:
        evidence = f"The train loss is {fmean(latest):.3g} and began at {start:.3g}."
    elif start is not None and its.evals and its.evals[-1] > RISE * start + RISE_BY:
        evidence = f"The eval loss is {its.evals[-1]:.3g}, and training began at {start:.3g}."
    elif len(its.evals) > 1 and its.evals[-1] > max(1.5 * min(its.evals), min(its.evals) + 0.5):
        if (its.trains[-1] or 0.0) < 0.8 * its.evals[-1]:
            return None  # the train loss does not follow: overfitting
        evidence = f"The eval loss is {its.evals[-1]:.3g} and was {min(its.evals):.3g}."
    else:
        return None
    return its.found(
        "diverging",
        evidence,
        "Lower train.learning_rate (a tenth of it is a safe next try), or raise train.warmup_ratio.",
        f"{FEW_STEPS} steps on end or an eval loss above {RISE:g} times the start, or an eval loss 1.5 times its best",
        HERE,
    )


def loss_flat(its: Series) -> Finding | None:
    """A loss that has not moved since the start, or stands still where nothing was learned."""
    if its.resumed or len(its.evals) < 2 or its.now <= its.setting.warmup_steps:
        return None
    first, latest, start = its.evals[0], its.evals[-1], its.start_loss
    trained = [point.loss for point in its.windows[-1]]
    not_moved = abs(first - latest) < FLAT * first and (
        start is None or not trained or fmean(trained) > (1 - 5 * FLAT) * fmean(point.loss for point in its.windows[0])
    )
    recent = its.evals[-3:]
    stuck = len(recent) == 3 and min(recent) > STUCK_LOSS and max(recent) - min(recent) < 2 * STEADY * min(recent)
    if stuck and not not_moved:
        evidence = f"The eval loss stands still at {latest:.3g}."
        advice = "Check the data: do replies follow from their prompts, and are the right tokens learned?"
        return its.found("loss_flat", evidence, advice, f"three evaluations within 2 % above {STUCK_LOSS:g}", READING)
    if not not_moved or latest < 0.5:
        return None
    return its.found(
        "loss_flat",
        f"The eval loss has hardly moved: {first:.4g} at the first evaluation, {latest:.4g} at the latest.",
        "Raise train.learning_rate (5e-4 is worth a try on a real base); then check data, format, and that the adapter "
        "has a gradient.",
        f"less than {FLAT:.0%} between the first and the latest evaluation",
        READING,
    )


def learning_slowly(its: Series) -> Finding | None:
    """A loss that falls by less than its start in most of the training, at a rate that is too low."""
    if len(its.evals) < 2 or its.start_loss is None or its.now < 0.2 * its.setting.max_steps:
        return None
    latest = [point.loss for point in its.windows[-1]]
    if len(latest) < FEW_STEPS or fmean(latest) < 1.5 or its.peak > RISE * its.start_loss:
        return None
    fell, norms = 1 - fmean(latest) / its.start_loss, [p.grad_norm for p in its.windows[-1] if p.grad_norm]
    if fell > 0.1 or not norms or median(norms) < FROZEN_NORM:
        return None
    return its.found(
        "learning_slowly",
        f"After {its.now} of {its.setting.max_steps} steps the train loss is {fmean(latest):.3g}, {fell:.0%} below its "
        "start.",
        "Raise train.learning_rate, by a factor of 3 to 10, or train longer.",
        "less than 10 % below the start after a fifth of the steps, and above 1.5",
        "LoRA guides: 1e-5 barely moves, 1e-2 oscillates, about 2e-4 is right for a real base",
    )


def accuracy_flat(its: Series) -> Finding | None:
    """A token accuracy that stands still where much is left to learn."""
    means = [
        fmean(known)
        for window in its.windows
        if (known := [point.token_accuracy for point in window if point.token_accuracy is not None])
    ]
    if its.resumed or len(means) < 4 or max(means) > LOW_ACCURACY:
        return None
    recent = means[-3:]
    if max(recent) - min(recent) > FLAT_ACCURACY or recent[-1] - means[0] > 5 * FLAT_ACCURACY:
        return None
    return its.found(
        "accuracy_flat",
        f"The model finds {recent[-1]:.0%} of the supervised tokens, and found {means[0]:.0%} at first.",
        "Check that replies follow from their prompts (shuffled rows, wrong answers), then raise train.learning_rate.",
        f"three windows within 1 point, below {LOW_ACCURACY:.0%}, and at most 5 points above the first",
        "LoRA guides: token accuracy rises, such as from 56 to 79 %",
    )


def start_loss(its: Series) -> Finding | None:
    """A start that is not this base's: another loss on the first steps than on the same rows before training."""
    base, start = its.setting.base, its.start_loss
    if base is None or start is None:
        return None
    if base.loss > base.guess_loss * WORSE_THAN_A_GUESS:
        return its.found(
            "start_loss",
            f"The base's own loss on {base.rows} of these rows is {base.loss:.3g}; a guess among all tokens has "
            f"{base.guess_loss:.3g}.",
            "Check the chat template (model.chat_template), the supervised tokens, and that replies are whole.",
            f"{WORSE_THAN_A_GUESS:g} times what guessing gives",
            "a uniform guess costs the logarithm of the vocabulary; " + HERE,
        )
    if start > 1.5 * base.loss + 1.0:
        return its.found(
            "start_loss",
            f"Training began at a loss of {start:.3g}; the base's own loss on rows of it is {base.loss:.3g}.",
            "Check the rows that are trained on, and the adapter of train.init_from if there is one.",
            "one above 1.5 times the base's own loss",
            HERE,
        )
    return None


def unknown_template(its: Series) -> Finding | None:
    """A chat template whose marks the base has never seen."""
    base = its.setting.base
    if base is None or base.mark_loss is None or base.mark_loss <= base.guess_loss:
        return None
    return its.found(
        "unknown_template",
        f"The base finds the marks of this chat template ({base.mark_loss:.3g} a token) harder than a guess "
        f"({base.guess_loss:.3g}): it was not trained with it.",
        "Use the template that the base came with (model.chat_template: own) if it has one; if it has none, the "
        "adapter must learn this one first, and this is no fault.",
        "the loss of the tokens before replies, above the logarithm of the vocabulary",
        "a base that knows its template finds its marks all but certain",
    )


def rising_after_falling(its: Series) -> Finding | None:
    """An eval loss that rises while the train loss falls on."""
    losses = its.evals
    if len(losses) < 3:
        return None
    best = losses.index(min(losses))
    train_then, train_now = its.trains[best], its.trains[-1]
    if losses[-1] < (1 + OVERFIT) * losses[best] or best == len(losses) - 1 or losses[0] <= losses[best]:
        return None
    if train_then is None or train_now is None or train_now > train_then:
        return None
    return its.found(
        "rising_after_falling",
        f"The eval loss was {losses[best]:.3g} at step {its.curve[best].step} and is {losses[-1]:.3g}, while the train "
        f"loss fell from {train_then:.3g} to {train_now:.3g}.",
        "It overfits: the best checkpoint is kept. Train for fewer epochs, on more data, or with a lower rank.",
        f"{OVERFIT:.0%} above its best",
        READING,
    )


def memorising(its: Series) -> Finding | None:
    """A train loss far below the eval loss."""
    if not its.curve or (train := its.trains[-1]) is None:
        return None
    evaluated, epoch = its.evals[-1], its.steps[-1].epoch if its.steps else 2.0
    if epoch <= 1.0 or evaluated - train < GAP or evaluated < GAP_RATIO * train:
        return None
    return its.found(
        "memorising",
        f"The train loss is {train:.3g} and the eval loss {evaluated:.3g}, after {epoch:.1f} epochs.",
        "The training rows are learned by heart: train for fewer epochs, on more data, or with a lower rank.",
        f"eval above train by {GAP:g} and by a factor of {GAP_RATIO:g}, after the first epoch",
        READING + "; 10 epochs memorise",
    )


def loss_spikes(its: Series) -> Finding | None:
    """Steps whose loss and gradient leap at once."""
    spikes = []
    for place in range(8, len(its.steps)):
        before, point = its.steps[place - 8 : place], its.steps[place]
        norms = [other.grad_norm for other in before if other.grad_norm is not None]
        if point.grad_norm is None or not norms or not math.isfinite(point.loss):
            continue
        if (
            point.loss > max(SPIKE * median(other.loss for other in before), max(other.loss for other in before) + 0.5)
            and point.grad_norm > SPIKE_NORM * median(norms)
            and math.isfinite(point.grad_norm)
        ):
            spikes.append(point)
    if not spikes:
        return None
    last = spikes[-1]
    return its.found(
        "loss_spikes",
        f"The loss leapt to {last.loss:.3g} at step {last.step}, with a gradient norm of {last.grad_norm:.3g}"
        f"{f', and {len(spikes) - 1} times before' if len(spikes) > 1 else ''}.",
        "Look at the rows of that step; if it repeats, lower train.learning_rate or train.max_grad_norm.",
        f"{SPIKE:g} times the loss and {SPIKE_NORM:g} times the gradient norm of the 8 steps before",
        HERE,
    )


def eval_set_leaks(its: Series) -> Finding | None:
    """Rows of the eval set that are trained on."""
    shared, rows = its.setting.shared_rows, its.setting.val_rows
    if not shared or not rows:
        return None
    return its.found(
        "eval_set_leaks",
        f"{shared} of the {rows} rows that give the eval loss are also trained on.",
        "The eval loss is too low and chooses the trial that memorises best. Take these rows out of one of the parts.",
        "any row with the same tokens in both parts",
        "an eval loss is one on rows that were never learned",
    )


def eval_set_small(its: Series) -> Finding | None:
    """An eval set by which nothing can be decided."""
    rows = its.setting.val_rows
    if rows is None or rows >= FEW_ROWS or not its.curve:
        return None
    return its.found(
        "eval_set_small",
        f"The eval loss comes from {rows} rows: differences between trials are chance.",
        "Raise data.split.val or add data.",
        f"fewer than {FEW_ROWS} rows",
        "the mean of so few rows is off by a quarter of their spread",
        is_alarm=False,
    )


def plateau(its: Series) -> Finding | None:
    """A loss that has fallen and no longer does."""
    losses = its.evals
    recent = losses[-3:]
    if len(losses) < 4 or max(recent) - min(recent) > STEADY * min(recent) or recent[-1] > 0.9 * losses[0]:
        return None
    return its.found(
        "plateau",
        f"The eval loss fell from {losses[0]:.3g} and has stayed at {recent[-1]:.3g} for three evaluations.",
        "Normal: stopping here is fine.",
        f"three evaluations within {STEADY:.0%}, 10 % below the first",
        "LoRA guides: a fast drop, then a plateau, is normal",
        is_alarm=False,
    )


CHECKS: tuple[Callable[[Series], Finding | None], ...] = (
    not_finite,
    frozen_adapter,
    exploding_gradient,
    diverging,
    loss_flat,
    learning_slowly,
    accuracy_flat,
    start_loss,
    unknown_template,
    rising_after_falling,
    memorising,
    loss_spikes,
    eval_set_leaks,
    eval_set_small,
    plateau,
)


EXPLAINS: dict[FindingName, tuple[FindingName, ...]] = {
    "frozen_adapter": ("loss_flat", "learning_slowly", "accuracy_flat", "plateau"),
    "diverging": ("loss_flat", "learning_slowly", "accuracy_flat", "rising_after_falling"),
    "exploding_gradient": ("learning_slowly",),
    "loss_flat": ("learning_slowly", "plateau"),
}
"""Findings whose symptoms others would be."""


def findings_of(series: Series) -> list[Finding]:
    """What all checks find in a trial so far, without the symptoms of what else is found."""
    found = [its for check in CHECKS if (its := check(series)) is not None]
    explained = {symptom for its in found for symptom in EXPLAINS.get(its.name, ())}
    return [its for its in found if its.name not in explained]


def rate_at_edge(best: float, low: float, high: float, *, num_trials: int) -> Finding | None:
    """The best learning rate at the edge of the searched ones; `low` and `high` are the ends of the space."""
    if num_trials < 4 or not 0 < low < high:
        return None
    place = (math.log(best) - math.log(low)) / (math.log(high) - math.log(low))
    if EDGE < place < 1 - EDGE:
        return None
    end, other = ("lower", "smaller") if place <= EDGE else ("upper", "larger")
    return Finding(
        name="rate_at_edge",
        evidence=f"The best learning rate, {best:.3g}, is at the {end} end of the searched {low:.3g} to {high:.3g}.",
        advice=f"Search {other} rates too: widen search.space.learning_rate.",
        threshold=f"within {EDGE:.0%} of an end, on a logarithmic scale, after 4 trials",
        source="an optimum at the edge of a space is likely to lie outside",
        is_alarm=False,
    )
