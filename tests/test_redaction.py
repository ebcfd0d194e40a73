"""Secrets by key, by value and by environment stay out; every other value stays as it is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from src.redaction import HIDDEN, Redactor

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "key",
    [
        "api_token",
        "logger.api_token",
        "+logger.wandb.api_key",
        "++db.password",
        "apikey",
        "API_KEY",
        "aws.secret",
        "client_secret",
        "secrets.wandb",
        "access_key",
        "private_key",
        "credential",
        "credentials",
        "auth",
        "db.auth",
        "basic_auth",
        "auth_token",
        "hf_token",
        "passwd",
        "+x.api-key",
        "+x.access-key",
        "private-key",
    ],
)
def test_the_value_of_a_secret_key_on_the_command_line(key: str) -> None:
    override = f"{key}={SECRET}"
    hidden = Redactor([override, "seed=1"]).text(f"python -m src.train {override} seed=1 # then {SECRET}")
    assert SECRET not in hidden
    assert hidden == f"python -m src.train {key}={HIDDEN} seed=1 # then {HIDDEN}"


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quoted_on_the_command_line_and_bare_in_the_configuration(quote: str) -> None:
    redactor = Redactor([f"api_token={quote}{SECRET}{quote}"])
    assert redactor.text(f"api_token: {SECRET}") == f"api_token: {HIDDEN}"
    assert SECRET not in redactor.text(f"api_token={quote}{SECRET}{quote}")


def test_nested_keys_and_lists() -> None:
    config = {
        "logger": {
            "api_token": "first-one",
            "url": "https://example.org",
            "credentials": {"user": "second-one", "pin": ["third-one", 1234]},
        },
        "servers": [{"password": "abc", "port": 8080}],
        "epochs": 50,
    }
    redactor = Redactor([])
    assert redactor.tree(config) == {
        "logger": {"api_token": HIDDEN, "url": "https://example.org", "credentials": {"user": HIDDEN, "pin": [HIDDEN, HIDDEN]}},
        "servers": [{"password": HIDDEN, "port": 8080}],
        "epochs": 50,
    }
    assert redactor.text("first-one second-one third-one") == " ".join([HIDDEN] * 3)


def test_no_other_value_differs_from_what_a_run_used() -> None:
    """Short secrets and switches were looked for in every value; so was what is a secret under another key."""
    words = ["model.cls_token=true", "+model.token_dim=16", "+hydra.job.env_set.HF_TOKEN=attention", "+x.auth=true"]
    config = {
        "model": {"cls_token": "learnable", "token_dim": 16, "use_token": 8, "channels": [16, 32], "pool": "attention"},
        "loader": {"drop_last": True, "root": "data/hf_cityscapes_small/sk-collection-of-streets"},
        "classes": {0: "Sky", 1: "token"},
    }
    redactor = Redactor(words)
    assert redactor.tree(config, config) == config
    assert [redactor.word(word) for word in words] == [*words[:2], "+hydra.job.env_set.HF_TOKEN=***", words[3]]
    assert redactor.word("model.pool=attention") == "model.pool=attention"
    assert redactor.text("drop_last: true, channels [16, 32], pooled by attention") == (
        f"drop_last: true, channels [16, 32], pooled by {HIDDEN}"
    )


def test_in_free_text_only_what_has_eight_characters() -> None:
    redactor = Redactor(["+a.password=abcdefg", "+b.password=abcdefgh"])
    assert redactor.text("abcdefg; abcdefgh") == "abcdefg; ***"
    assert redactor.word("+a.password=abcdefg") == "+a.password=***"


def test_a_secret_that_is_a_number() -> None:
    redactor = Redactor(["+db.password=27182818"])
    assert redactor.tree({"db": {"password": 27182818}, "epochs": 50}) == {"db": {"password": HIDDEN}, "epochs": 50}
    assert redactor.text("password: 27182818") == f"password: {HIDDEN}"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("root=https://alice:hunter2@host.org/data", f"root=https://{HIDDEN}@host.org/data"),
        ("ftp://bob:p%40ss@10.0.0.1:21/x", f"ftp://{HIDDEN}@10.0.0.1:21/x"),
        ("https://u:pa/ss@host", f"https://{HIDDEN}@host"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", HIDDEN),
        ("x hf_abcdefghijklmnopqrst y", f"x {HIDDEN} y"),
        ("glpat-abcdefghijklmnopqrst", HIDDEN),
        ("github_pat_11ABCDEFG0_abcdefghijklmnopqrst", HIDDEN),
        ("key is sk-proj-abcdefghijklmnop.", f"key is {HIDDEN}."),
        ("AKIAIOSFODNN7EXAMPLE", HIDDEN),
        ("xoxb-123456789012-abcdefabcdefabcdef", HIDDEN),
    ],
)
def test_values_that_are_secrets_whatever_their_key(text: str, hidden: str) -> None:
    assert Redactor([]).text(text) == hidden
    assert Redactor([]).tree({"name": [text]}) == {"name": [hidden]}


def test_an_address_that_was_made_a_path_of() -> None:
    redactor = Redactor(["dataset.root=https://alice:hunter2@host/data"])
    assert redactor.text("https:/alice:hunter2@host/data: no such folder") == f"https:/{HIDDEN}@host/data: no such folder"


def filled(config: dict[str, Any]) -> Any:
    """The configuration with its interpolations filled in, by OmegaConf."""
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True)


@pytest.mark.parametrize(
    "words",
    [
        *("${oc.env:WANDB_TOKEN}", "${oc.env:'WANDB_TOKEN'}", '${oc.env:"WANDB_TOKEN",x}', "${ oc.env: WANDB_TOKEN}"),
        *("a ${oc.env:WANDB_TOKEN} b", "${oc.decode:${oc.env:WANDB_TOKEN}}", "${oc.env:UNSET_TOKEN,12345678}"),
        *("${oc.env:UNSET,${oc.env:WANDB_TOKEN}}", "${login.password}", "${login}", "${copy}", "${oc.env:UNSET_TOKEN,'12 34'}"),
    ],
)
@pytest.mark.parametrize("value", ["12345678", "from-environment", "1234"])
def test_what_comes_from_the_environment(words: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written, as a number too, and brought in by another key."""
    monkeypatch.setenv("WANDB_TOKEN", value)
    if words == "${copy}" and len(value) < 8:
        return  # not hidden, as src/redaction.py says
    written = {"root": words, "copy": "${oc.env:WANDB_TOKEN}", "login": {"password": "hush-hush"}, "seed": 1234}
    config, redactor = filled(written), Redactor([])
    stored = redactor.tree(config, written)
    assert stored["root"] == ({"password": HIDDEN} if words == "${login}" else HIDDEN)
    assert stored["seed"] == 1234
    if len(str(config["root"])) >= 8 and words != "${login}":
        assert redactor.text(f"error: {config['root']} is wrong") == f"error: {HIDDEN} is wrong"


def test_an_environment_variable_that_nothing_names_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "from-environment")
    monkeypatch.setenv("MY_ROOT", "/data/camvid")
    assert Redactor([]).text("from-environment in /data/camvid") == f"{HIDDEN} in /data/camvid"


def test_an_environment_variable_with_any_name_behind_a_secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB", "from-environment")
    written, redactor = {"api_token": "${oc.env:WANDB}"}, Redactor([])
    assert redactor.tree(written) == written  # where it is, is no secret
    assert redactor.tree(filled(written), written) == {"api_token": HIDDEN}
    assert redactor.text("from-environment") == HIDDEN


@pytest.mark.parametrize(
    ("word", "hidden"),
    [
        ("name=${oc.env:MY_TOKEN}", "name=${oc.env:MY_TOKEN}"),
        ("+api_token=${oc.env:WANDB}", "+api_token=${oc.env:WANDB}"),
        ("name=${oc.env:MY_TOKEN,hush-hush}", "name=${oc.env:MY_TOKEN,***}"),
        ("+api_token=${oc.env:WANDB,hush-hush}", "+api_token=***"),
        ("dataset.root=${oc.env:MY_ROOT,/data}", "dataset.root=${oc.env:MY_ROOT,/data}"),
    ],
)
def test_a_reference_stays_and_its_default_does_not(word: str, hidden: str) -> None:
    redactor = Redactor([word])
    assert redactor.word(word) == hidden
    key, _, value = word.lstrip("+").partition("=")
    assert redactor.tree({key: value}) == {key: hidden.partition("=")[2]}
    if HIDDEN in hidden:
        redactor.tree(filled({key: value}), {key: value})
        assert redactor.text("hush-hush") == HIDDEN


@pytest.mark.parametrize(
    "override",
    [
        *("+logger={api_key:hush-hush}", "+a={b: {'api_key': 'hush-hush', c: 1}, d: 2}", "+a=[{pass.token:hush-hush"),
        *("+a={credentials: {user: hush-hush}}", "+a={credentials: [hush-hush]}"),
    ],
)
def test_a_secret_key_within_a_dictionary_of_the_command_line(override: str) -> None:
    assert Redactor([]).word(override) == f"{override.partition('=')[0]}={HIDDEN}"
    if "credentials" not in override:
        assert "hush-hush" not in Redactor([override]).text(f"{override}: not of the form key=value")


def test_what_is_learnt_later_is_hidden_too() -> None:
    redactor = Redactor(["seed=1"])
    redactor.learn(["api_key=hush-hush"])
    assert redactor.text("hush-hush") == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "optimizer.lr=0.1",
        "python -m src.train model=attunet optimizer=sgd",
        "/home/alice/data/camvid:ro",
        "outputs/attunet_camvid/2026-01-01_00-00-00_abcdef12",
        "https://arxiv.org/abs/1804.03999",
        "http://localhost:6006/#scalars",
        "a risk-free, task-oriented disk-like mask",
        "12:34:56 epoch 1/2  train loss 2.3382",
        "git@github.com:owner/repository.git",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    config: dict[str, Any] = {"optimizer": {"lr": 0.1}, "dataset": {"root": "data/camvid"}, "name": None}
    redactor = Redactor(["optimizer.lr=0.1", "seed=1"])
    assert redactor.tree(config) == config
    assert redactor.text(text) == text


@pytest.mark.parametrize(
    "override", ["author=alice", "+model.num_tokens=16", "+tokenizer=bytes", "token_file=/run/x", "authors=oktay"]
)
def test_words_that_only_contain_a_secret_word_are_no_secrets(override: str) -> None:
    key, _, value = override.partition("=")
    text = f"command: {override}; channels [16, 32], seen in {value}s by alice, oktay and bytes"
    redactor = Redactor([override])
    assert redactor.tree({key.lstrip("+"): value}) == {key.lstrip("+"): value}
    assert redactor.word(override) == override
    assert redactor.text(text) == text


@given(st.text(alphabet="abcdefghij0123456789-_./", min_size=8, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_a_secret_never_survives(secret: str, before: str, after: str) -> None:
    hidden = Redactor([f"api_token={secret}"]).text(before + secret + after)
    assert secret not in hidden


LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(["sgd", "data/x", "0.1"])
KEYS = st.sampled_from(["lr", "model", "seed"])


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=8))
def test_a_tree_without_secrets_is_unchanged(tree: Any) -> None:
    assert Redactor(["optimizer.lr=0.1"]).tree(tree, tree) == tree
