"""Group commit against one publish per request, on the same stream.

The consumer is frozen while load runs and catches up between loads: single rates cost it more than batches do, and on
few cores that would count for the group.
"""

from __future__ import annotations

from statistics import median

from bench import profiles
from bench.bars import CONNECTIONS, Bar, Measured, Options
from bench.scene import WARM_UP_S, scene

FEW = (1, 2, 5)


async def measure(options: Options) -> Measured:
    """Confirmed rates a second of both in turns, at few connections and at many."""
    async with scene(options) as stage:
        single = await stage.start_app("bench.publish_per_request", stage.broker.url)
        for target in (single, stage.api):
            await stage.load_alone(target, seconds=WARM_UP_S)
        samples: list[dict[str, object]] = []
        ratios: dict[int, list[float]] = {connections: [] for connections in (*FEW, CONNECTIONS)}
        for turn in range(1, options.repeat + 1):
            for connections, measured_ratios in ratios.items():
                options.say(f"turn {turn} of {options.repeat}: one publish per request, {connections} connections")
                alone = await stage.load_alone(single, connections=connections)
                options.say(f"turn {turn} of {options.repeat}: group commit, {connections} connections")
                grouped = await stage.load_alone(stage.api, connections=connections)
                measured_ratios.append(grouped.peak.per_s / alone.peak.per_s)
                samples += [
                    alone.sample(turn=turn, of="publish per request", connections=connections),
                    grouped.sample(turn=turn, of="group commit", connections=connections),
                ]
        verdict = await stage.settle()
        measured = Measured("group", _bars(ratios), samples, verdict)
        measured.profiles = await profiles.of_api(stage, measured)
        measured.commands = list(stage.commands)
        return measured


def _bars(ratios: dict[int, list[float]]) -> list[Bar]:
    name = "confirmed rates/s, group commit / one publish per request"
    bars = [Bar(f"{name}, {CONNECTIONS}", "", 1.7, False, median(ratios[CONNECTIONS]))]
    return bars + [Bar(f"  the same at {few} connections", "", 0.95, False, median(ratios[few])) for few in FEW]
