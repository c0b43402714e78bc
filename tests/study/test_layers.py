"""The figure of personal layers, from the runs that the archive of the ablation holds."""

from pathlib import Path

from fedtsd.study.archive import unpack
from fedtsd.study.layers import draw_layers
from tests.study.made_up import write_final

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_it_is_drawn_from_the_archive(tmp_path: Path) -> None:
    assert unpack(RESULTS / "benchmark_ablation.tar.xz", tmp_path)
    paths = draw_layers(tmp_path / "run", tmp_path, "ablation", "fedtsdp_full")
    assert [path.name for path in paths] == [
        "benchmark_ablation_layers.pdf",
        "benchmark_ablation_layers.png",
    ]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_without_fixed_numbers_there_is_none(tmp_path: Path) -> None:
    folder = write_final(tmp_path / "run", {("ours", "iid"): [[0.5]], ("local", "iid"): [[0.4]]})
    assert draw_layers(folder, tmp_path, "toy", "ours") == []
    assert not (tmp_path / "figures").exists()
