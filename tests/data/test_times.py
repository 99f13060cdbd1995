"""Times of rows: dates in many formats, those that are refused, and the latest rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.data.times import describe_times, find_latest, parse_times

MARCH, APRIL = "2025-03-04", "2025-04-03"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2025-04-03"], APRIL),
        (["20250403T100000Z"], "2025-04-03 10:00"),
        (["2025-04-03T10:00:00+02:00", "2025-04-03 10:00"], "2025-04-03 08:00"),
        (["2025/4/3"], APRIL),
        (["2025.04.03"], APRIL),
        (["3.4.2025", "1.1.2025"], APRIL),  # with dots the day comes first
        (["03.04.25 9:05", "01.01.25 12:00"], "2025-04-03 09:05"),
        ([" 3/4/2025", "28/4/2025"], APRIL),  # another row tells the order
        (["3/4/2025", "4/28/2025"], MARCH),
        (["03-04-2025 10:00", "28-04-2025 10:00"], "2025-04-03 10:00"),
        (["4/4/2025", "5/5/2025"], "2025-04-04"),  # either order means the same
        (["3/4/2025 1:05 PM", "4/28/2025 2:05 AM"], "2025-03-04 13:05"),  # pandas recognizes only the second
        (["3 Apr 2025"], APRIL),
        (["April 3, 2025 10:00 PM", "April 3, 2025 9:00 AM"], "2025-04-03 22:00"),
        (["Thu, 03 Apr 2025 10:00:00 +0200"], "2025-04-03 08:00"),
    ],
)
def test_dates_are_read(values, expected):
    times = parse_times(pd.Series(values, range(7, 7 + len(values)), object), "train.csv", "created")
    assert times.iat[0] == pd.Timestamp(expected) and times.index[0] == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["01/01/2025", "3/4/2025"], "row 9: .* '3/4/2025', which may be 04 March 2025 or 03 April 2025, and no row"),
        (["03-04-2025"], "row 8: TIME_COLUMN 'created' has '03-04-2025', which may be 04 March 2025 or"),
        (
            ["28/4/2025", "4/28/2025"],
            "row 9: .* has '4/28/2025', but there is no such day or time, read as '28/4/2025'",
        ),
        (
            ["2025-04-03", "3.4.2025"],
            "row 9: .* has '3.4.2025', but 1 of 2 rows are like '2025-04-03': write all dates",
        ),
        (["3.4.2025", "2025-04-03"], "row 8: .* has '3.4.2025', but 1 of 2 rows are like '2025-04-03': write all"),
        (
            ["2025-04-03", "2025-02-30"],
            "row 9: .* has '2025-02-30', but there is no such day or time, read as '2025-04-",
        ),
        (
            ["1.2.2025", "31.02.2025"],
            r"has '31.02.2025', but there is no such day or time, read as '1.2.2025' is: correct",
        ),
        (["1.2.2025 9:00", "2.2.2025 25:00"], "has '2.2.2025 25:00', but there is no such day or time"),
        (["31.02.2025"], "has '31.02.2025', which is no day, or in no known format: write all dates alike"),
        (["2025-04-03", "", "n/a"], r"row 9: .* has '', but expected a date \(2 of 3 rows are at fault\): complete or"),
        (
            ["26-04-03"],
            r"has '26-04-03', but expected a date with a year \(1 of 1 rows are at fault\): write all dates",
        ),
        (
            ["3/4/2025", "next week"],
            r"has 'next week', but expected a date with a year \(1 of 2 .* or set TIME_COLUMN = N",
        ),
        (["3/4/25"], "has '3/4/25', .* with a year"),
        (["1700000000"], "has '1700000000', .* with a year"),
        (["now"], "has 'now'"),
        (["12:30"], "has '12:30'"),
        (["high"], "has 'high'"),
        (["version 2025"], "has 'version 2025', which is no day, or in no known format: write all dates alike"),
    ],
)
def test_ambiguous_and_unreadable_dates_are_refused(values, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_times(pd.Series(values, range(7, 7 + len(values)), object), "train.csv", "created")
    assert str(error.value).startswith("train.csv, row ")


@given(
    times=st.lists(st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2040-01-01")), min_size=1, max_size=20),
    style=st.sampled_from(["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%B %d, %Y %I:%M:%S %p"]),
)
def test_times_are_those_that_were_written_or_refused(times, style):
    values = pd.Series([time.strftime(style) for time in times], dtype=object)
    try:
        parsed = parse_times(values, "train.csv", 3)
    except ValueError as error:  # no day is above 12
        is_ambiguous = style.startswith("%d/") and all(time.day <= 12 for time in times)
        # pandas recognizes a format with AM and PM only by a time in the morning
        assert is_ambiguous or (style.endswith("%p") and not any(1 <= time.hour < 12 for time in times)), error
        return
    expected = [time.replace(microsecond=0) for time in times]
    if style.startswith("%d/") and all(time.day == time.month for time in times):
        return
    assert parsed.tolist() == [pd.Timestamp(time) for time in expected]


@given(days=st.lists(st.integers(0, 30), min_size=1, max_size=60), share=st.sampled_from([0.01, 0.1, 0.2, 0.37, 0.5]))
def test_the_latest_rows_by_brute_force(days, share):
    times = pd.Series(pd.to_datetime(days, unit="D", origin="2025-01-01"), np.arange(len(days)) * 3)
    possible = [sum(day >= start for day in days) for start in set(days) - {min(days)}]
    if not possible:
        with pytest.raises(ValueError, match=f"all {len(days)} rows have the same time"):
            find_latest(times, share)
        return
    is_latest = find_latest(times, share)
    assert max(times[~is_latest]) < min(times[is_latest])  # so rows of the same time are on one side
    nearest = min(abs(size - share * len(days)) for size in possible)
    assert abs(is_latest.sum() - share * len(days)) == nearest


def test_times_are_described():
    times = pd.Series(pd.to_datetime(["2025-01-02 08:00", "2025-03-01 00:00", "2025-02-01 00:00", "2025-04-01 00:00"]))
    assert describe_times(times, pd.Series(["train", "dev", "train", "dev"])) == [
        "train: from 2025-01-02 08:00 to 2025-02-01 00:00",
        "dev: from 2025-03-01 00:00 to 2025-04-01 00:00",
    ]
    sentences = describe_times(times, pd.Series(["train", "train", "dev", "dev"]))
    assert sentences[2:] == ["1 rows of train are not earlier than the first of dev"]
