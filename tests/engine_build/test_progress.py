import pytest

from engine_build.progress import readable_size, step


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98_362_432, "93.8 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_sizes_are_readable(size_bytes: int, text: str) -> None:
    assert readable_size(size_bytes) == text


def test_a_step_tells_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    with step("thinking"):
        pass
    assert capsys.readouterr().err == "thinking ... 0.0 s\n"


def test_a_failed_step_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), step("thinking"):
        raise ValueError("no")
    assert capsys.readouterr().err == "thinking ...\n"
