import csv

import pytest

from benchmarks import image_speed
from benchmarks.__main__ import main


@pytest.mark.slow
def test_writes_the_table(tmp_path, cells):
    assert main(["speed", "--images", "--quick", "--out", str(tmp_path)]) == 0
    with (tmp_path / "speed_images.csv").open(newline="") as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    assert float(rows["conv4"]["forward"]) > 0 and float(rows["conv4"]["training"]) > 0
    assert 0 < float(rows["conv4"]["forward_share"]) < 1.5
    assert float(rows["weak"]["forward"]) > 0 and rows["weak"]["training"] == ""
    lines = cells((tmp_path / "speed_images.md").read_text())
    assert ["weak", "32", "32"] in [line[:3] for line in lines]


@pytest.mark.slow
def test_rates_of_a_small_encoder():
    row = image_speed._measure("conv4", "float32", True)
    assert row["forward"] > 0 and row["training"] > 0 and row["features"] > 0
    # Four convolutions of 3 x 3: 2 * 9 * 3 * 64 * 32^2 operations an image for the first alone.
    assert row["forward_share"] > 0
