"""Environment readers refuse by name what cannot be meant."""

import pytest

from kalimtak.core import env


@pytest.fixture
def variable(monkeypatch):
    return lambda value: monkeypatch.setenv("KALIMTAK_X", value)


@pytest.mark.parametrize(("value", "meaning"), [("1", True), ("Yes", True), ("off", False), ("", False)])
def test_a_boolean_is_read(variable, value, meaning):
    variable(value)
    assert env.boolean("KALIMTAK_X", not meaning) is meaning


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (lambda: env.boolean("KALIMTAK_X"), "maybe"),
        (lambda: env.integer("KALIMTAK_X", 1, low=1, high=10), "11"),
        (lambda: env.integer("KALIMTAK_X", 1), "1.5"),
        (lambda: env.size("KALIMTAK_X", 1), "0"),
        (lambda: env.size("KALIMTAK_X", 1), "5 parsecs"),
        (lambda: env.rate("KALIMTAK_X", "1/s"), "60 per minute"),
        (lambda: env.networks("KALIMTAK_X"), "10.0.0.0/8, the proxy"),
        (lambda: env.choice("KALIMTAK_X", "a", ["a", "b"]), "c"),
        (lambda: env.folder("KALIMTAK_X", None), "s3://bucket/models"),
    ],
)
def test_an_odd_value_is_refused_with_the_name(variable, reader, value):
    variable(value)
    with pytest.raises(env.EnvironmentRefused, match="KALIMTAK_X"):
        reader()


@pytest.mark.parametrize(("value", "bytes_"), [("500", 500), ("2K", 2048), ("3 MiB", 3 * 1024**2), ("1G", 1024**3)])
def test_sizes_have_units(variable, value, bytes_):
    variable(value)
    assert env.size("KALIMTAK_X", 1) == bytes_


def test_dotenv_fills_only_what_is_not_set(tmp_path, monkeypatch):
    monkeypatch.setenv("KALIMTAK_SET", "outer")
    monkeypatch.delenv("KALIMTAK_FRESH", raising=False)
    file = tmp_path / ".env"
    file.write_text("# remark\n\nKALIMTAK_SET=inner\nexport KALIMTAK_FRESH='a b'\n")
    env.load_dotenv(file)
    assert env.text("KALIMTAK_SET") == "outer"
    assert env.text("KALIMTAK_FRESH") == "a b"
    monkeypatch.delenv("KALIMTAK_FRESH")
    file.write_text("what is this\n")
    with pytest.raises(env.EnvironmentRefused, match="line 1"):
        env.load_dotenv(file)
