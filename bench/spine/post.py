"""What the API spends on a confirmed `POST /rate`, against a handler that does nothing, on the same interpreter.

The bar is held with the consumer running, as in service. On few cores its neighbours then slow the API down by taking
turns and cache; the ratio with the consumer frozen is noted beside it, and tells the two apart.
"""

from __future__ import annotations

from statistics import median

from bench import profiles
from bench.bars import CONNECTIONS, Bar, Measured, Options
from bench.scene import WARM_UP_S, scene


async def measure(options: Options) -> Measured:
    """CPU per request of all in turns."""
    async with scene(options) as stage:
        baseline = await stage.start_app("bench.baseline_app")
        for target, role in ((baseline, "baseline"), (stage.api, "api")):
            await stage.load(target, role=role, seconds=WARM_UP_S)
        samples: list[dict[str, object]] = []
        ratios: list[float] = []
        ratios_alone: list[float] = []
        for turn in range(1, options.repeat + 1):
            options.say(f"turn {turn} of {options.repeat}: the handler that does nothing")
            nothing = await stage.load(baseline, role="baseline")
            options.say(f"turn {turn} of {options.repeat}: POST /rate")
            posted = await stage.load(stage.api)
            await stage.settle()
            options.say(f"turn {turn} of {options.repeat}: POST /rate, the consumer frozen")
            alone = await stage.load_alone(stage.api)
            ratios.append(posted.cpu_us("api") / nothing.cpu_us("baseline"))
            ratios_alone.append(alone.cpu_us("api") / nothing.cpu_us("baseline"))
            loads = {"nothing": nothing, "post": posted, "post, the consumer frozen": alone}
            samples += [load.sample(turn=turn, of=name) for name, load in loads.items()]
        verdict = await stage.settle()
        name = f"API CPU per confirmed POST /rate / nothing, {CONNECTIONS} connections"
        measured = Measured("post", [Bar(name, "", 1.15, True, median(ratios))], samples, verdict)
        measured.notes = [
            f"ratio of each turn: {', '.join(f'{ratio:.3f}' for ratio in ratios)}",
            f"with the consumer frozen: {median(ratios_alone):.3f}",
        ]
        measured.profiles = await profiles.of_api(stage, measured)
        measured.commands = list(stage.commands)
        return measured
