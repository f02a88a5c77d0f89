"""Policies as text: no loss on the way there and back, and mistakes shown where they stand."""

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyisolate import (
    Capability,
    Channel,
    Clock,
    Command,
    ConnectTCP,
    Http,
    Import,
    Policy,
    PolicyError,
    Random,
    ReadPath,
    ReadWritePath,
    Resolve,
    Secret,
    WritePath,
    authorities,
)

FORMATS = ["yaml", "toml", "json"]

# --- any policy ---------------------------------------------------------------------------------

# What text files, shells and the three formats find hard.
hard = st.sampled_from(list("abcXYZ019 -_.:,#'\"{}[]&|>!%@`~\\\té漢\U0001f600"))
names = st.text(hard.filter(lambda c: c.isprintable()), min_size=1, max_size=12)
components = names.filter(lambda it: it not in {".", ".."} and "[" not in it)
folders = st.lists(components, max_size=3).map(lambda parts: "/" + "/".join(parts))
paths = st.one_of(
    folders,
    st.tuples(folders, st.sampled_from(["*.csv", "**", "**/x?", "[a-z]*/y"])).map("/".join),
)
words = st.text(st.sampled_from("abcdefghij0123456789"), min_size=1, max_size=8)
labels = words.map(lambda it: f"h{it}")
hosts = st.one_of(
    st.lists(labels, min_size=1, max_size=3).map(".".join),
    st.lists(labels, min_size=1, max_size=2).map(lambda parts: "*." + ".".join(parts)),
    st.ip_addresses().map(str),
    st.sampled_from(["*", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0"]),
)
ports = st.integers(1, 65535)
port_ranges = st.one_of(ports, st.tuples(ports, ports).map(lambda pair: tuple(sorted(pair))))
lists_of_hosts = st.lists(hosts, max_size=3)
modules = st.lists(labels, min_size=1, max_size=3).map(".".join)


@st.composite
def urls(draw):
    host = draw(hosts)
    host = f"[{host}]" if ":" in host or "/" in host else host
    port = draw(st.one_of(st.just(""), ports.map(lambda port: f":{port}")))
    path = draw(st.lists(words, max_size=3).map(lambda parts: "".join(f"/{it}" for it in parts)))
    return draw(st.sampled_from(["", "http://", "https://"])) + host + port + path


methods = st.lists(st.sampled_from(["GET", "POST", "PUT", "PROPFIND", "*"]), min_size=1)
arguments = st.lists(names.filter(lambda it: "[" not in it), max_size=3)
environments = st.dictionaries(words, names, max_size=2)
sizes = st.integers(0, 2**40)
AUTHORITIES = st.one_of(
    st.builds(ReadPath, paths),
    st.builds(WritePath, paths),
    st.builds(ReadWritePath, paths),
    st.builds(ConnectTCP, hosts, port_ranges, st.booleans()),
    st.builds(Http, urls(), st.one_of(st.none(), methods), st.booleans()),
    st.builds(Resolve, hosts),
    st.builds(
        Command, words, arguments, environments, st.lists(folders, max_size=2), sizes, sizes, sizes
    ),
    st.builds(Secret, names, st.just(True), lists_of_hosts),
    st.builds(Secret, names, st.booleans(), st.lists(hosts, min_size=1, max_size=2)),
    st.builds(lambda them: Clock(*them), st.sets(st.sampled_from(["time", "sleep"]))),
    st.builds(Random, st.one_of(st.none(), st.integers(0, 2**64 - 1))),
    st.builds(lambda name, ends: Channel(name, *ends), names, st.sets(st.just("send"))),
    st.builds(
        Capability,
        names.map(lambda it: f"own {it}"),
        st.one_of(st.none(), st.sets(names, min_size=1).map(list)),
    ),
    st.builds(Import, modules),
)
LIMITS = st.dictionaries(
    st.sampled_from(["wall_time_ms", "cpu_ms", "network_ops_max", "disk_bytes_max"]),
    st.integers(1, 2**30),
    max_size=3,
)


@st.composite
def policies(draw):
    policy = Policy().limit(**draw(LIMITS))
    for authority in draw(st.lists(AUTHORITIES, max_size=8)):
        policy = policy.deny(authority) if draw(st.booleans()) else policy.grant(authority)
    return policy


free_paths = folders.map(lambda it: ("read", it)) | folders.map(lambda it: ("write", it))
ACTS = st.one_of(
    free_paths,
    st.tuples(st.just("connect"), st.tuples(labels, ports).map(lambda it: f"{it[0]}:{it[1]}")),
    st.tuples(st.just("resolve"), labels),
    st.tuples(st.sampled_from(["get", "post"]), labels.map(lambda it: f"https://{it}/a")),
    st.tuples(st.just("run"), words, names),
    st.tuples(st.sampled_from(["reveal", "send", "receive"]), names),
    st.tuples(st.just("clock"), st.sampled_from(["time", "monotonic", "sleep"])),
    st.tuples(st.just("random")),
    st.tuples(st.just("import"), modules),
)


def text_of(policy, form):
    return getattr(policy, f"to_{form}")()


@settings(deadline=None, max_examples=150)
@given(policies())
def test_object_to_text_to_object_loses_nothing(policy):
    for form in FORMATS:
        text = text_of(policy, form)
        read = Policy.from_text(text, form)
        assert read == policy
        assert text_of(read, form) == text
    assert Policy.from_dict(policy.to_dict()) == policy


@settings(deadline=None, max_examples=150)
@given(policies())
def test_its_rules_make_the_same_policy(policy):
    again = Policy().limit(**policy.limits)
    for effect, authority in policy.rules:
        again = again.grant(authority) if effect == "allow" else again.deny(authority)
    assert again == policy
    assert again.rules == policy.rules


@settings(deadline=None, max_examples=100)
@given(policies(), st.sampled_from(FORMATS), st.sampled_from(FORMATS))
def test_one_form_says_what_another_does(policy, one, other):
    first = Policy.from_text(text_of(policy, one), one)
    assert text_of(first, other) == text_of(policy, other)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=200), st.sampled_from(FORMATS))
def test_any_text_is_a_policy_or_an_error(text, form):
    said = ""
    try:
        Policy.from_text(text, form)
    except PolicyError as error:
        said = f"error: {error}"
    assert said != "error: "


@settings(deadline=None, max_examples=200)
@given(policies(), ACTS)
def test_explain_says_what_is_decided_and_its_grant_allows_it(policy, act):
    explained = policy.explain(*act)
    assert explained.allowed == policy.allows(*act)
    assert str(explained)
    if explained.grant is not None:
        assert not explained
        granted = Policy.from_text(f"version: 1\n{explained.grant}")
        assert (policy | granted).allows(*act)
        assert policy.grant(eval(explained.python, vars(authorities))).allows(*act)


def test_the_forms_are_what_they_are_called():
    policy = Policy().allow_read("/data").cpu_budget(5)
    assert json.loads(policy.to_json()) == tomllib.loads(policy.to_toml()) == policy.to_dict()
    assert policy.to_yaml().startswith("version: 1\n")


# --- what a text says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\ndefaults:\n  fs: {read: [/data]}\n",
        "version: 1\nfs:\n  read: /data\n",
        '{"version": 1, "defaults": {"fs": {"read": ["/data"]}}}',
        'version = 1\n[defaults.fs]\nread = ["/data"]\n',
    ],
)
def test_one_model_in_three_forms(text):
    form = "json" if text.startswith("{") else "toml" if "=" in text else "yaml"
    assert Policy.from_text(text, form) == Policy().allow_read("/data")


def test_older_names_are_read():
    text = """
version: 1
defaults:
  cpu_ms: 5000
  mem: 64MiB
sandboxes:
  worker:
    extends: base
    fs: {allow: /scratch}
    net: {connect: "db.internal:5432"}
  base:
    imports: [math]
"""
    policy = Policy.from_text(text, cell="worker")
    assert policy == (
        Policy()
        .allow_fs("/scratch")
        .allow_tcp("db.internal:5432")
        .allow_import("math")
        .limit(cpu_ms=5000, mem_bytes=64 << 20)
    )
    assert Policy.from_text(text, cell="stranger") == Policy().limit(
        cpu_ms=5000, mem_bytes=64 << 20
    )


def test_an_empty_list_allows_nothing():
    policy = Policy.from_text("version: 1\nfs: {read: []}\nimports: []\n")
    assert policy == Policy()


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("version: 1\nfs:\n  raed: [/data]\n", "p.yml:3:3", 'did you mean "read"'),
        ("version: 2\n", "p.yml:1:10", "version"),
        ("fs: {read: [/data]}\n", "p.yml:1:1", "version"),
        ("version: 1\nfs:\n  read: [data]\n", "p.yml:3", "not absolute"),
        ("version: 1\nextends: compute-onyl\n", "p.yml:2:10", 'did you mean "compute-only"'),
        ("version: 1\nnet:\n  connect: db\n", "p.yml:3:12", "no port"),
        ("version: 1\nmem_bytes: lots\n", "p.yml:2:12", ""),
        ("version: 1\nfs: [\n", "p.yml:", ""),
    ],
)
def test_a_mistake_is_shown_where_it_stands(text, place, says):
    with pytest.raises(PolicyError) as caught:
        Policy.from_text(text, source="p.yml")
    assert place in str(caught.value)
    assert says in str(caught.value)


def test_all_mistakes_are_shown_at_once():
    text = "version: 1\nfs: {raed: /x}\nnet: {conect: h:1}\n"
    with pytest.raises(PolicyError) as caught:
        Policy.from_text(text)
    assert "raed" in str(caught.value)
    assert "conect" in str(caught.value)


def test_a_files_folder_is_not_part_of_a_place(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('version = 1\n[fs]\nread = ["/data"]\n')
    place = Policy.from_file(file).explain("read", "/data/x").place
    assert place == "policy.toml:3"


def test_a_form_that_there_is_not():
    with pytest.raises(ValueError, match="yaml, toml and json"):
        Policy.from_text("", "ini")
