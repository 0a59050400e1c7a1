"""The configuration: defaults, and mistakes that say what they are."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from druncd import config, tables

SHIPPED = Path(__file__).parents[2] / "units" / "druncd.toml"


def test_nothing_configured_gives_the_defaults() -> None:
    found = config.parse("")
    assert [(listen.address, listen.contract) for listen in found.listen] == [
        ("unix:/run/druncd/druncd.sock", "interface"),
        ("127.0.0.1:10054", "interface"),
        ("127.0.0.1:10055", "drunc"),
    ]
    assert [(listen.authentication, listen.administrators) for listen in found.listen] == [
        ("none", True),
        ("none", False),
        ("none", False),
    ]
    assert (found.kill.signal, found.kill.number, found.kill.timeout) == ("SIGQUIT", 3, 5)
    assert found.process.user == "drunc"


def test_the_shipped_file_shows_every_setting_with_its_default() -> None:
    text = SHIPPED.read_text()
    assert config.parse(text) == config.Config()
    settings = [line.removeprefix("# ") for line in text.splitlines() if _is_setting(line)]
    assert config.parse("\n".join(settings)) == config.Config()
    found = tomllib.loads("\n".join(settings))
    assert found.keys() == config.Config.model_fields.keys() - {"node", "profile"}
    for name, table in vars(config.Config()).items():
        if isinstance(table, tables.Table):
            assert found[name].keys() == type(table).model_fields.keys()
    # Of those that are lists of tables, some keys are in an example or in a sentence only.
    for kind in (config.Listen, config.AllowTable, config.Profile, config.NodeTable):
        for key in kind.model_fields:
            assert re.search(rf"\b{key}( =| is|\.properties)", text), key


def _is_setting(line: str) -> bool:
    rest = line.removeprefix("# ")
    return rest.startswith("[") or (" = " in rest and rest.split(" = ")[0].isidentifier())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[node]]\nname = 'a b'", ["node[0].name = 'a b'", "letters, digits, dots and dashes"]),
        ("[[node]]\nname = 'a'\nssh = 'x@'", ["node[0].ssh = 'x@'", "[user@]host:port"]),
        ("[[node]]\nname = 'a'\njump = 'b:0'", ["node[0].jump = 'b:0'", "[user@]host:port"]),
        ("[[node]]\nname = 'a'\nkey = 'k'", ["node[0].key = 'k'", "the absolute path"]),
        ("[[node]]\nname = 'a'\nsessions = 4", ["node[0].sessions = 4", "from 5 to 1000"]),
        ("[[node]]\nname = 'a'\n[[node]]\nname = 'b'\naliases = ['A']", ["'a' is there twice"]),
        ("nmae = 'x'", ["nmae: no such setting", "did you mean 'name'"]),
        ("name = 3", ["name = 3: must be a text", "in quotes"]),
        ("name = ''", ["name = ''", "1 to 200"]),
        ('name = "a\\u0000"', ["must be a text"]),
        ('name = "a\\nb"', ["must be a text"]),
        ("name = 2020-01-01", ["name = 2020-01-01"]),
        ("name = x", ["not valid TOML", "line 1"]),
        ("kill = 5", ["kill = 5: must be a table headed [kill]"]),
        ("[kill]\nsignal = 'QUIT'", ["kill.signal = 'QUIT'", "SIGQUIT"]),
        ("[kill]\nsignal = 3", ["kill.signal = 3", "SIGQUIT"]),
        ("[kill]\nsignal = 'SIGKILL'", ["kill.signal", "follows by itself"]),
        ("[kill]\nsignal = 'SIGWINCH'", ["kill.signal = 'SIGWINCH'"]),
        ("[kill]\ntimeout = 0", ["kill.timeout = 0", "above 0 and at most 3600"]),
        ("[kill]\ntimeout = '5'", ["kill.timeout = '5'", "number"]),
        ("[kill]\ntimeout = true", ["kill.timeout = true"]),
        ("[kill]\ntimeout = nan", ["kill.timeout = nan", "above 0 and at most 3600"]),
        ("[kill]\nsginal = 'x'", ["kill.sginal", "did you mean 'signal'"]),
        ("[stop]\ntimeout = 300", ["stop.timeout = 300", "0 to 40"]),
        ("[process]\nuser = ''", ["process.user = ''", "account"]),
        ("[process]\nuser = 'no such'", ["process.user = 'no such'", "account"]),
        ("listen = []", ["listen = []", "one or more tables headed [[listen]]"]),
        ("[listen]\naddress = 'unix:/x'", ["headed [[listen]]"]),
        ("[[listen]]\ncontract = 'x'", ["listen[0].address: is missing", '"interface" or "drunc"']),
        ("[[listen]]\naddress = 'unix:x'", ["listen[0].address = 'unix:x'", "absolute path"]),
        ("[[listen]]\naddress = 'host'", ["host:port"]),
        ("[[listen]]\naddress = 'h:99999'", ["1 to 65535"]),
        ("[[listen]]\naddress = '999.1.1.1:5'", ["host:port"]),
        ("[[listen]]\naddress = '[1:2]:5'", ["[ipv6]:port"]),
        ("[[listen]]\naddress = 'h:1'\n[[listen]]\naddress = 'h:1'", ["'h:1' is there twice"]),
        (
            "[[listen]]\naddress = 'localhost:1'\n[[listen]]\naddress = '127.0.0.1:1'",
            ["is there twice"],
        ),
        ("[[listen]]\naddres = 'h:1'", ["listen[0].addres", "did you mean 'address'"]),
        ("[[listen]]\naddress = '0.0.0.0:1'", ["over the network", "insecure = true"]),
        ("[[listen]]\naddress = '[::]:1'", ["over the network", "insecure = true"]),
        ("[[listen]]\naddress = 'np04-srv-001:1'", ["over the network"]),
        (
            "[[listen]]\naddress = '0.0.0.0:1'\nauthentication = 'token'",
            ["tokens could be read", "certificate and a key"],
        ),
        (
            "[[listen]]\naddress = '0.0.0.0:1'\ncertificate = '/c'\nkey = '/k'",
            ["everyone there could run", '"token" or "mtls"'],
        ),
        ("[[listen]]\naddress = 'localhost:1'\ncertificate = '/c'", ["needed together"]),
        ("[[listen]]\naddress = 'localhost:1'\nkey = 'k'", ["listen[0].key = 'k'", "absolute"]),
        (
            "[[listen]]\naddress = 'h:1'\nauthentication = 'mtls'",
            ["certificate is missing", "client_ca is missing"],
        ),
        ("[[listen]]\naddress = 'localhost:1'\nclient_ca = '/c'", ['"mtls"']),
        ("[[listen]]\naddress = 'localhost:1'\nauthentication = 'tls'", ['"none", "token" or']),
        ("[[listen]]\naddress = 'localhost:1'\nmode = '0666'", ["mode is for a Unix socket"]),
        ("[[listen]]\naddress = 'localhost:1'\nadministrators = true", ["is for a Unix socket"]),
        ("[[listen]]\naddress = 'unix:/x'\ngroup = 'daq'", ["gives it nothing", '"0660"']),
        ("[[listen]]\naddress = 'unix:/x'\nmode = '0888'", ["mode = '0888'", "octal"]),
        ("[[listen]]\naddress = 'unix:/x'\nmode = 0o600", ["mode = 384", "octal"]),
        ("[[listen]]\naddress = 'unix:/x'\ncertificate = '/c'\nkey = '/k'", ["needs no TLS"]),
        ("[[listen]]\naddress = 'unix:/x'\nauthentication = 'mtls'", ["has no certificates"]),
        (
            "[[listen]]\naddress = 'unix:/x'\nadministrators = true\nmode = '0666'",
            ["administrators of all accounts", "ends with 0"],
        ),
        ("[[listen]]\naddress = 'h:1'\nidentity = ['cn']", ["identity[0] = 'cn'", "colon"]),
        ("[[listen]]\naddress = 'h:1'\nidentity = ['cn:('] ", ["regular expression", "unterm"]),
        ("[[listen]]\naddress = 'h:1'\nidentity = ['cn:.*']", ["with one group"]),
        ("[[listen]]\naddress = 'h:1'\nidentity = []", ["identity = []"]),
        ("[process]\nuser = 'root'", ["as root", 'privileged = ["root"]']),
        ("[tokens]\nfile = 'x'", ["tokens.file = 'x'", "absolute"]),
        ("[permission]\nadministrators = 'ada'", ["administrators = 'ada'", "a list"]),
        ("[permission.groups]\nx = 'ada'", ["permission.groups.x = 'ada'"]),
        ("[permission.groups]\nx = ['ada', 3]", ["permission.groups.x[1] = 3"]),
        ("[[permission.allow]]\nwho = ['*']\nactions = ['RED']", ["actions[0] = 'RED'", '"READ"']),
        ("[[permission.allow]]\nactions = ['READ']", ["allow[0].who: is missing"]),
        (
            "[[permission.allow]]\nwho = ['*']\nactions = ['READ']\nprocesses = 'any'",
            ['"own" or "all"'],
        ),
        ("[log]\nlevel = 'loud'", ["log.level = 'loud'", '"debug", "info"']),
        ('"a\\nb" = 1', [r"'a\nb': no such setting"]),
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


def test_one_wrong_listener_is_one_mistake() -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.parse("[[listen]]\naddress = 'x'")
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_an_error_if_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="no such file"):
        config.load(tmp_path / "x.toml")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        with pytest.raises(config.ConfigError, match="not a regular file"):
            config.load(path)


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("a = 1\nb = 2\n")
    with pytest.raises(config.ConfigError) as caught:
        config.load(file)
    assert [line.startswith(f"{file}: ") for line in str(caught.value).splitlines()] == [True] * 2


@pytest.mark.parametrize(
    "lines",
    [
        "address = '0.0.0.0:1'\ninsecure = true",
        "address = '0.0.0.0:1'\nauthentication = 'token'\ninsecure = true",
        "address = '0.0.0.0:1'\nauthentication = 'token'\ncertificate = '/c'\nkey = '/k'",
        "address = '[::1]:1'\nauthentication = 'token'",
        "address = 'unix:/x'\nmode = '660'\ngroup = 'daq'\nauthentication = 'token'",
        "address = 'h:1'\nauthentication = 'mtls'\ncertificate = '/c'\nkey = '/k'\n"
        "client_ca = '/a'",
    ],
)
def test_a_listener_that_is_safe_or_said_to_be_insecure_is_taken(lines: str) -> None:
    assert len(config.parse(f"[[listen]]\n{lines}").listen) == 1


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ("address = '127.0.0.1:1'", True),
        ("address = 'unix:/x'\nmode = '0666'", True),
        ("address = 'unix:/x'\nmode = '0660'\ngroup = 'daq'", True),
        ("address = 'unix:/x'", False),
        ("address = '127.0.0.1:1'\ninsecure = true", False),
        ("address = '127.0.0.1:1'\nauthentication = 'token'", False),
    ],
)
def test_an_account_s_own_druncd_is_not_opened_to_others_by_chance(
    lines: str, refused: bool
) -> None:
    text = f"[[listen]]\n{lines}"
    assert config.parse(text)
    (own,) = config.parse("name = 'mine'", config.own()).listen
    assert own.address.endswith("/druncd/druncd.sock")
    if not refused:
        assert config.parse(text, config.own())
        return
    with pytest.raises(config.ConfigError, match=r"listen\[0\]: other accounts could run"):
        config.parse(text, config.own())
