"""Secrets by key, by value and by environment stay out; ordinary text stays as it is."""

import time
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
            "credentials": {"user": "second-one", "pin": ["third-one"]},
        },
        "servers": [{"password": "fourth-one", "port": 8080}],
        "epochs": 50,
    }
    redactor = Redactor([], config)
    assert redactor.tree(config) == {
        "logger": {"api_token": HIDDEN, "url": "https://example.org", "credentials": {"user": HIDDEN, "pin": [HIDDEN]}},
        "servers": [{"password": HIDDEN, "port": 8080}],
        "epochs": 50,
    }
    assert redactor.text("first-one second-one third-one fourth-one") == " ".join([HIDDEN] * 4)


def test_a_secret_that_is_a_number() -> None:
    redactor = Redactor(["+db.password=271828"], {"db": {"password": 271828}, "epochs": 50})
    assert "271828" not in str(redactor.tree({"db": {"password": 271828}, "epochs": 50}))
    assert redactor.tree({"epochs": 50}) == {"epochs": 50}
    assert "271828" not in redactor.text("password: 271828")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("root=https://alice:hunter2@host.org/data", f"root=https://{HIDDEN}@host.org/data"),
        ("ftp://bob:p%40ss@10.0.0.1:21/x", f"ftp://{HIDDEN}@10.0.0.1:21/x"),
        ("https://u:pa/ss@host", f"https://{HIDDEN}@host"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", HIDDEN),
        ("x hf_abcdefghijklmnopqrst y", f"x {HIDDEN} y"),
        ("glpat-abcdefghij_klmnopqrst", HIDDEN),
        ("github_pat_11ABCDEFG0_abcdefgh", HIDDEN),
        ("key is sk-abcdefghijklmnop.", f"key is {HIDDEN}."),
        ("AKIAIOSFODNN7EXAMPLE", HIDDEN),
        ("xoxb-123456789012-abcdef", HIDDEN),
    ],
)
def test_values_that_are_secrets_whatever_their_key(text: str, hidden: str) -> None:
    assert Redactor([]).text(text) == hidden
    assert Redactor([]).tree({"name": [text]}) == {"name": [hidden]}


def part(file: str, *lines: str) -> str:
    """Of a patch: a new file."""
    header = [f"diff --git a/{file} b/{file}", "new file mode 100644", "--- /dev/null", f"+++ b/{file}", "@@ -0,0 +1,9 @@"]
    return "\n".join([*header, *(f"+{line}" for line in lines)]) + "\n"


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("API_KEY=s3cr3t-value  # mine", "API_KEY=***"),
        ("export WANDB_API_KEY=s3cr3t-value", "export WANDB_API_KEY=***"),
        ("  password: s3cr3t-value # prod", "  password: ***"),
        ("- password: s3cr(3t-value)", "- password: ***"),
        ("x-api-key: s3cr3t-value", "x-api-key: ***"),
        ("password = s3cr3t- value", "password = ***"),
        ('{"Authorization": "Bearer s3cr3t-value"}', '{"Authorization": ***'),
        ('curl -H "Authorization: Bearer s3cr3t-value" host', 'curl -H "Authorization: ***'),
        (r'"os.environ[\"WANDB_API_KEY\"] = \"s3cr3t-value\"\n",', r'"os.environ[\"WANDB_API_KEY\"] = ***'),  # of a notebook
        ("machine host login me password s3cr3t-value", "machine host login me password ***"),
        ("password s3cr3t-value", "password ***"),
        ("tokens: 16", "tokens: 16"),
        ("author: oktay", "author: oktay"),
    ],
)
def test_what_a_patch_gives_a_secret_name(line: str, hidden: str) -> None:
    assert Redactor([]).patch(part("a.yaml", line, "lr: 0.1")) == part("a.yaml", hidden, "lr: 0.1")


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ('os.environ["WANDB_API_KEY"] = "s3cr3t-value"', 'os.environ["WANDB_API_KEY"] = ***'),
        ('client = Client(api_key="s3cr3t-value")', "client = Client(api_key=***"),
        ("token: str = 's3cr3t-value'", "token: ***"),
        ('password = SecretStr("s3cr3t-value")', "password = ***"),
        ('headers = "Authorization: Bearer s3cr3t-value"', 'headers = "Authorization: ***'),
        ("PASSWORD = 12345678", "PASSWORD = ***"),
        ("    password: s3cr3t-value", "    password: ***"),
        ("API_TOKEN=s3cr3t-value", "API_TOKEN=***"),
        ("    token: str", "    token: str"),
        ("    self.token = self.read(token)", "    self.token = self.read(token)"),
        ("    def f(self, token: str) -> None:", "    def f(self, token: str) -> None:"),
        ("        self.token = token", "        self.token = token"),
        ('name = "attunet"', 'name = "attunet"'),
    ],
)
def test_what_a_patch_of_code_gives_a_secret_name(line: str, hidden: str) -> None:
    assert Redactor([]).patch(part("a.py", line, "lr = 0.1")) == part("a.py", hidden, "lr = 0.1")


@pytest.mark.parametrize("before", ["", "    ", "  - "])
@pytest.mark.parametrize("style", ["|", ">-", "|2+ # mine", "!!str &mine |"])
def test_a_block_of_yaml_in_a_patch(before: str, style: str) -> None:
    deeper = " " * (len(before) + 2)
    secret = [f"{before}password: {style}", f"{deeper}s3cr3t-", "", f"{deeper}  value"]
    after = ["lr: 0.1", "  x: 2"]
    hidden = [f"{before}password: {HIDDEN}", HIDDEN, "", HIDDEN]
    assert Redactor([]).patch(part("a.yaml", *secret, *after)) == part("a.yaml", *hidden, *after)


def test_a_block_of_yaml_of_which_a_patch_shows_a_part() -> None:
    head = "diff --git a/a.yaml b/a.yaml\n--- a/a.yaml\n+++ b/a.yaml\n"
    ends = head + "@@ -1,2 +1,2 @@\n password: |\n-  s3cr3t\n\\ No newline at end of file\n+  s3cr3t-2\n"
    assert Redactor([]).patch(ends) == ends.replace(" |", " ***").replace("-  s3cr3t\n", "-***\n").replace("  s3cr3t-2", "***")
    begun = head + "@@ -4,3 +4,3 @@ password: |\n   s3cr3t\n   s3cr3t-2\n-lr: 0.1\n+lr: 0.2\n"
    assert Redactor([]).patch(begun) == begun.replace(" |", " ***").replace("  s3cr3t-2", "***").replace("  s3cr3t", "***")


def test_an_empty_block_of_yaml_hides_nothing_else() -> None:
    lines = ["  password: |", "  lr: 0.1", "epochs: 3"]
    assert Redactor([]).patch(part("a.yaml", *lines)) == part("a.yaml", f"  password: {HIDDEN}", *lines[1:])


def test_a_long_patch_is_read_in_no_time() -> None:
    patch = part("a.yaml", *([" " * 12 + "some: words of no importance, and more of them"] * 30_000), " " * 4000 + "x" * 4000)
    begin = time.process_time()
    Redactor([]).patch(patch)
    assert time.process_time() - begin < 3


def test_a_private_key_in_a_patch() -> None:
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    patch = part("deploy", begin, "c2VjcmV0", "a2V5", end) + part("a.yaml", "lr: 0.1")
    assert Redactor([]).patch(patch) == part("deploy", begin, HIDDEN, HIDDEN, end) + part("a.yaml", "lr: 0.1")
    cut = part("deploy", begin, "c2VjcmV0") + part("a.yaml", "lr: 0.1")  # more of it is not in the patch
    assert Redactor([]).patch(cut) == part("deploy", begin, HIDDEN) + part("a.yaml", "lr: 0.1")


def test_a_secret_that_git_shows_as_the_place_of_a_change() -> None:
    patch = "diff --git a/.env b/.env\n--- a/.env\n+++ b/.env\n@@ -9 +9 @@ API_KEY=s3cr3t-value\n-A=1\n+A=2\n"
    assert Redactor([]).patch(patch) == patch.replace("s3cr3t-value", HIDDEN)


def test_environment_variables_with_a_secret_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "from-environment")
    monkeypatch.setenv("MY_ROOT", "/data/camvid")
    for redactor in (
        Redactor(["name=${oc.env:MY_TOKEN}", "dataset.root=${oc.env:MY_ROOT}"]),
        Redactor([], {"logger": {"key": ["${oc.env:MY_TOKEN,none}"]}, "root": "${oc.env:MY_ROOT}"}),
    ):
        assert redactor.text("from-environment in /data/camvid") == f"{HIDDEN} in /data/camvid"


def test_an_environment_variable_with_any_name_behind_a_secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB", "from-environment")
    assert "from-environment" not in Redactor([], {"api_token": "${oc.env:WANDB}"}).text("api_token: from-environment")
    assert "from-environment" not in Redactor(["+api_token=${oc.env:WANDB}"]).text("api_token: from-environment")


@pytest.mark.parametrize("words", ["${oc.env:'WANDB_TOKEN'}", '${oc.env:"WANDB_TOKEN",x}', "${ oc.env: WANDB_TOKEN}"])
def test_however_the_interpolation_is_written(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TOKEN", "from-environment")
    assert OmegaConf.create({"a": words}).a == "from-environment"
    assert Redactor([f"name={words}"]).text("from-environment") == HIDDEN


@pytest.mark.parametrize(
    "override", ["+logger={api_key:abc-def}", "+a={b: {'api_key': 'abc-def', c: 1}, d: 2}", "+a=[{pass.token:abc-def"]
)
def test_a_secret_key_within_a_dictionary_of_the_command_line(override: str) -> None:
    assert "abc-def" not in Redactor([override]).text(f"{override}: not of the form key=value")


def test_what_is_learnt_later_is_hidden_too() -> None:
    redactor = Redactor(["seed=1"])
    redactor.learn([], {"api_key": "abc-def"})
    assert redactor.text("abc-def") == HIDDEN


def test_an_unset_environment_variable_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_TOKEN", raising=False)
    assert Redactor(["name=${oc.env:MY_TOKEN,x}"]).text("seed=0") == "seed=0"


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
    assert Redactor(["optimizer.lr=0.1", "seed=1"], config).text(text) == text


@pytest.mark.parametrize("override", ["author=alice", "+model.num_tokens=16", "+tokenizer=bytes", "paper.authors=oktay"])
def test_words_that_only_contain_a_secret_word_are_no_secrets(override: str) -> None:
    key, _, value = override.partition("=")
    text = f"command: {override}; channels [16, 32], seen in {value}s by alice, oktay and bytes"
    assert Redactor([override]).text(text) == text
    assert Redactor([], {key.lstrip("+"): value}).text(text) == text


@given(st.text(alphabet="abcdefghij0123456789-_./", min_size=6, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_a_secret_never_survives(secret: str, before: str, after: str) -> None:
    hidden = Redactor([f"api_token={secret}"]).text(before + secret + after)
    assert secret not in hidden


LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(["sgd", "data/x", "0.1"])
KEYS = st.sampled_from(["lr", "model", "seed"])


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=8))
def test_a_tree_without_secrets_is_unchanged(tree: Any) -> None:
    assert Redactor(["optimizer.lr=0.1"], tree).tree(tree) == tree
