from pathlib import Path

import pytest

from benchmarks.outcomes import describe_time, require, stop


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the same command with --resume goes on from out"),
        ({"flag": None}, "the same command goes on from out"),
    ],
)
def test_an_interruption_says_how_to_go_on(capsys, options, said):
    assert stop(Path("out"), **options) == 130
    assert said in capsys.readouterr().err


def test_what_is_not_installed_is_named():
    require("json")
    with pytest.raises(ImportError, match="no_such_part: not installed"):
        require("json", "no_such_part")


def test_times_are_said_to_a_minute():
    assert [describe_time(x) for x in (3.4, 119, 150)] == [
        "about 3 s",
        "about 119 s",
        "about 2 minutes",
    ]
