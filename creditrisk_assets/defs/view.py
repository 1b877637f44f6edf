"""The view of the loop that people open: written beside the reports when something has happened."""

import json
import time

import dagster as dg

from creditrisk_assets.defs.retraining import history_mark
from creditrisk_assets.settings import Settings

INTERVAL_SECONDS = 10
OLDEST_SECONDS = 300.0
"""So old may the view become while nothing happens: what the sensors say is in it, too."""


@dg.sensor(minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def status_for_people(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Writes what the monitoring page of the API shows, when something has happened. Starts
    nothing.
    """
    from creditrisk_assets.defs.status import loop_status  # which shows this sensor, too

    mark, now = history_mark(context.instance), time.time()
    remembered = json.loads(context.cursor) if context.cursor else {}
    if remembered.get("mark") == mark and now - remembered["written"] < OLDEST_SECONDS:
        return dg.SensorResult(skip_reason="nothing has happened since the page was written")
    loop_status(context.instance, settings).write(settings.reports)
    cursor = json.dumps({"mark": mark, "written": now})
    return dg.SensorResult(skip_reason="the monitoring page was written", cursor=cursor)
