"""The one time axis: a partition is a business day in UTC."""

import dagster as dg

FIRST_DAY = "2024-01-01"
"""The first day that may land. The UCI data has no dates, so any day is as true as another; earlier days are refused by name."""

DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)
"""Today is included: a day's file may land before the day is over."""
