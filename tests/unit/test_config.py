"""The configuration: defaults, and mistakes that say what they are."""

from pathlib import Path

import pytest

from druncd import config

SHIPPED = Path(__file__).parents[2] / "units" / "druncd.toml"


def test_nothing_configured_gives_the_defaults() -> None:
    found = config.parse("")
    assert [(listen.address, listen.contract) for listen in found.listen] == [
        ("unix:/run/druncd/druncd.sock", "interface"),
        ("127.0.0.1:10054", "interface"),
        ("127.0.0.1:10055", "drunc"),
    ]
    assert (found.kill.signal, found.kill.number, found.kill.timeout) == ("SIGQUIT", 3, 5)
    assert found.process.user == "drunc"


def test_the_shipped_file_shows_every_setting_with_its_default() -> None:
    text = SHIPPED.read_text()
    assert config.parse(text) == config.Config()
    settings = [line.removeprefix("# ") for line in text.splitlines() if _is_setting(line)]
    assert config.parse("\n".join(settings)) == config.Config()
    for key in ("name", "address", "contract", "user", "signal", "timeout", "level"):
        assert any(line.startswith(f"{key} = ") for line in settings)


def _is_setting(line: str) -> bool:
    rest = line.removeprefix("# ")
    return rest.startswith("[") or (" = " in rest and rest.split(" = ")[0].isidentifier())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nmae = 'x'", ["nmae = 'x'", "did you mean 'name'"]),
        ("[kill]\nsignal = 'QUIT'", ["kill.signal = 'QUIT'", "SIGQUIT"]),
        ("[kill]\nsignal = 'SIGKILL'", ["kill.signal", "follows by itself"]),
        ("[kill]\ntimeout = 0", ["kill.timeout = 0", "greater than 0"]),
        ("[kill]\ntimeout = '5'", ["kill.timeout = '5'", "number"]),
        ("[kill]\ntimeout = true", ["kill.timeout = True"]),
        ("[kill]\ntimeout = nan", ["kill.timeout = nan"]),
        ("[kill]\nsginal = 'x'", ["kill.sginal", "did you mean 'signal'"]),
        ("[process]\nuser = ''", ["process.user = ''"]),
        ("listen = []", ["listen = []", "at least 1"]),
        ("[[listen]]\ncontract = 'x'", ["listen[0].address: is missing", "'interface' or 'drunc'"]),
        ("[[listen]]\naddress = 'unix:x'", ["listen[0].address = 'unix:x'", "absolute path"]),
        ("[[listen]]\naddress = 'host'", ["host:port"]),
        ("[[listen]]\naddress = 'h:99999'", ["up to 65535"]),
        ("[[listen]]\naddress = 'h:1'\n[[listen]]\naddress = 'h:1'", ["twice"]),
        ("[[listen]]\naddres = 'h:1'", ["listen[0].addres", "did you mean 'address'"]),
        ("[log]\nlevel = 'loud'", ["log.level = 'loud'", "'debug', 'info', 'warning' or 'error'"]),
        ("kill = 5", ["kill = 5"]),
        ("name = x", ["not valid TOML", "line 1"]),
    ],
)
def test_a_mistake_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(text)
    for word in words:
        assert word in str(caught.value)


def test_every_mistake_is_reported() -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.parse("a = 1\n[kill]\nsignal = 'x'\ntimeout = -1\n[log]\nlevel = 5")
    assert len(str(caught.value).splitlines()) == 4


def test_a_missing_file_is_an_error_if_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="no such file"):
        config.load(tmp_path / "x.toml")


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("a = 1\nb = 2\n")
    with pytest.raises(config.ConfigError) as caught:
        config.load(file)
    assert [line.startswith(f"{file}: ") for line in str(caught.value).splitlines()] == [True] * 2
