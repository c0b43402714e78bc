import pytest

from fedtsd.cores import VARIABLE, limited_cores, usable_cores
from fedtsd.errors import ConfigError


def test_a_limit_holds_inside_its_block(monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    all_of_them = usable_cores()
    with limited_cores(7):
        assert usable_cores() == 7
    assert usable_cores() == all_of_them >= 1


def test_what_the_user_says_counts_more(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    with limited_cores(1):
        assert usable_cores() == 3
    assert usable_cores() == 3


def test_a_wrong_number_is_one_line(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "two")
    with pytest.raises(ConfigError, match="FEDTSD_WORKERS: must be a whole number from 1 on, got"):
        usable_cores()
