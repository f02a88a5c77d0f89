"""Policies as objects: what they are built of, what they say, and what they refuse."""

import pickle
from pathlib import Path

import pytest

from pyisolate import (
    AuthoritySet,
    Capability,
    Channel,
    Clock,
    Command,
    ConnectTCP,
    CpuBudget,
    Http,
    Import,
    Limit,
    Policy,
    PolicyError,
    Random,
    ReadPath,
    ReadWritePath,
    Resolve,
    Secret,
    WritePath,
    authorities,
    resolve_policy,
)

EVERY_AUTHORITY = [
    ReadPath("/data/**/*.csv"),
    WritePath(Path("/out")),
    ReadWritePath("/scratch"),
    ConnectTCP("db.internal", 5432, private=True),
    ConnectTCP("10.0.0.0/8", (8000, 8100)),
    Http("https://api.example.org/v1", methods=["get", "POST"]),
    Http("[10.0.0.0/8]:8080/a"),
    Http("*.example.org"),
    Resolve("*"),
    Command("git", ["log", "*"], env={"A": "b"}, read=["/srv/repo"], wall_time_ms=500),
    Secret("api-key", use=["api.example.org"]),
    Secret("plain", reveal=True),
    Clock("time", "sleep"),
    Random(7),
    Channel("jobs", "send"),
    Channel("both"),
    Capability("db", ["query"]),
    Capability("whole"),
    Import("math"),
    CpuBudget(5_000),
    Limit("mem_bytes", 64 << 20),
]


@pytest.mark.parametrize("authority", EVERY_AUTHORITY, ids=repr)
def test_an_authority_is_a_value(authority):
    again = eval(repr(authority), vars(authorities))
    assert again == authority
    assert hash(again) == hash(authority)
    assert pickle.loads(pickle.dumps(authority)) == authority
    assert type(authority).__doc__
    with pytest.raises(AttributeError):
        setattr(authority, next(iter(authority.fields())), "other")


def test_every_kind_of_rule_has_its_authority():
    kinds = {type(it) for it in EVERY_AUTHORITY} - {Limit, CpuBudget}
    assert set(authorities.KINDS.values()) == kinds


def test_what_means_the_same_is_equal():
    assert ReadPath("/data/../data/./x/") == ReadPath("/data/x")
    assert ConnectTCP("DB.Example.org.", 80) == ConnectTCP("db.example.org", (80, 80))
    assert ConnectTCP("0x7f.1", 80).host == "127.0.0.1"
    assert ConnectTCP.from_address("[::1]:80-90") == ConnectTCP("::1", (80, 90))
    assert ConnectTCP.from_address("h:*").port == (1, 65535)
    assert Http("HTTPS://h".lower()).url == "https://h"
    assert Command("x", env={"b": "1", "a": "2"}) == Command("x", env=[("a", "2"), ("b", "1")])
    assert Clock() == Clock("sleep", "monotonic", "time")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: ReadPath("data"), ValueError, "not absolute"),
        (lambda: ReadPath("/a/[x"), ValueError, "begins no class"),
        (lambda: ReadPath("/a\0b"), ValueError, "NUL"),
        (lambda: ReadPath(5), TypeError, "path is a path, not 5"),
        (lambda: ConnectTCP("a b", 80), ValueError, "no host"),
        (lambda: ConnectTCP("h", 0), ValueError, "1 to 65535"),
        (lambda: ConnectTCP("h", (9, 8)), ValueError, "1 to 65535"),
        (lambda: ConnectTCP("h", "80"), TypeError, "port is"),
        (lambda: ConnectTCP.from_address("h"), ValueError, "host:port"),
        (lambda: ConnectTCP.from_address("::1:80"), ValueError, r"\[::1\]:80"),
        (lambda: Http("ftp://h"), ValueError, "scheme"),
        (lambda: Http("h:0"), ValueError, "port"),
        (lambda: Http("https://h/a?b"), ValueError, "path"),
        (lambda: Http("https://u@h/"), ValueError, "no host"),
        (lambda: Http("https://h", methods=["a b"]), ValueError, "no method"),
        (lambda: Http("https://h", methods="GET"), TypeError, "list of str"),
        (lambda: Command("git status"), ValueError, "no program"),
        (lambda: Command("git", args=["**", "x"]), ValueError, "last"),
        (lambda: Command("git", env={"A": 1}), TypeError, "env"),
        (lambda: Secret(""), ValueError, "name of a secret"),
        (lambda: Clock("tick"), ValueError, "none of time"),
        (lambda: Random(-1), TypeError, "seed"),
        (lambda: Channel(""), ValueError, "name of a channel"),
        (lambda: Channel("c", "both"), ValueError, "none of send"),
        (lambda: Capability("filesystem"), ValueError, "built in"),
        (lambda: Capability("db", []), ValueError, "grants nothing"),
        (lambda: Import("os.*"), ValueError, "module name"),
        (lambda: Limit("memory", 1), ValueError, "the limits are wall_time_ms"),
        (lambda: Limit("mem_bytes", 1), ValueError, "outside"),
        (lambda: CpuBudget(0), ValueError, "cpu_ms=0"),
        (lambda: AuthoritySet("/data"), TypeError, "no authority"),
    ],
)
def test_what_no_policy_could_say_is_refused_where_it_is_made(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_policy_grants_nothing_by_itself():
    empty = Policy()
    assert empty.rules == ()
    assert empty.limits == {}
    for act in (("read", "/"), ("connect", "h:80"), ("import", "math"), ("clock", "time")):
        assert not empty.allows(*act)


def test_adding_returns_another_policy():
    base = Policy().allow_read("/data")
    more = base.allow_write("/out")
    assert len(base.rules) == 1
    assert more.rules == (("allow", ReadPath("/data")), ("allow", WritePath("/out")))
    with pytest.raises(AttributeError, match="return new ones"):
        base.rules = ()


def test_the_short_ways_are_the_long_ones():
    short = (
        Policy()
        .allow_fs("/a", "/b")
        .allow_read("/c")
        .allow_write("/d")
        .allow_tcp("h:80", "[::1]:443")
        .allow_import("math", "json")
        .cpu_budget(5_000)
        .limit(mem_bytes=64 << 20)
    )
    long = Policy().grant(
        ReadWritePath("/a"),
        ReadWritePath("/b"),
        ReadPath("/c"),
        WritePath("/d"),
        ConnectTCP("h", 80),
        ConnectTCP("::1", 443),
        Import("math"),
        Import("json"),
        CpuBudget(5_000),
        Limit("mem_bytes", 64 << 20),
    )
    assert short == long
    assert short.limits == {"cpu_ms": 5_000, "mem_bytes": 64 << 20}


def test_a_set_of_authorities_is_granted_whole():
    some = AuthoritySet(ReadPath("/a"), Import("math"))
    more = some | AuthoritySet(Import("math"), Clock())
    assert len(more) == 3
    assert Clock() in more
    assert set(more) == {ReadPath("/a"), Import("math"), Clock()}
    granted = Policy().grant(more)
    assert {authority for _, authority in granted.rules} == set(more)


def test_a_denial_wins_whatever_the_order():
    grants = Policy().deny(ReadPath("/data/private")).allow_read("/data")
    assert grants.allows("read", "/data/x")
    assert not grants.allows("read", "/data/private/x")
    assert not (Policy().deny(Import("os")) | Policy().allow_import("os")).allows("import", "os")


@pytest.mark.parametrize(
    ("grant", "deny", "act"),
    [
        (Command("git", ["**"]), Command("git"), ("run", "git", "status")),
        (Http("https://h", methods=["*"]), Http("https://h"), ("post", "https://h/x")),
        (Secret("k", reveal=True), Secret("k"), ("reveal", "k")),
        (Random(7), Random(8), ("random",)),
    ],
    ids=repr,
)
def test_a_denial_that_leaves_something_open_denies_all_of_it(grant, deny, act):
    granted = Policy().grant(grant)
    assert granted.allows(*act)
    assert not granted.deny(deny).allows(*act)


def test_a_grant_that_leaves_something_open_grants_little():
    assert not Policy().grant(Command("git")).allows("run", "git", "status")
    assert not Policy().grant(Http("https://h")).allows("post", "https://h/x")
    with pytest.raises(ValueError, match="grants nothing"):
        Policy().grant(Secret("k"))


def test_limits_cannot_be_denied():
    with pytest.raises(ValueError, match="smaller one"):
        Policy().deny(CpuBudget(5))


def test_a_union_has_both_and_the_right_ones_limits():
    left = Policy().allow_read("/a").cpu_budget(1_000).limit(mem_bytes=64 << 20)
    right = Policy().allow_read("/b").allow_read("/a").cpu_budget(2_000)
    both = left | right
    assert [authority for _, authority in both.rules] == [ReadPath("/b"), ReadPath("/a")]
    assert both.limits == {"cpu_ms": 2_000, "mem_bytes": 64 << 20}


def test_extending_puts_the_base_first():
    template = Policy.template("compute-only")
    own = Policy().cpu_budget(1_234).allow_read("/data")
    extended = own.extends("compute-only")
    assert extended.limits["cpu_ms"] == 1_234
    assert extended == template | own
    assert own.extends(Policy()) == own


def test_equality_is_of_the_text_and_a_policy_is_a_key():
    one = Policy().allow_read("/a").allow_write("/b")
    other = Policy().allow_write("/b").allow_read("/a")
    assert one == other
    assert hash(one) == hash(other)
    assert one != one.allow_read("/c")
    assert one != "policy"
    assert {one: 1}[other] == 1
    assert pickle.loads(pickle.dumps(one)) == one


def test_repr_can_be_evaluated():
    policy = Policy().grant(*EVERY_AUTHORITY).deny(ReadPath("/x"), Command("rm"))
    assert eval(repr(policy), vars(authorities) | {"Policy": Policy}) == policy


def test_explain_says_by_which_rule_and_what_is_missing():
    text = "version: 1\nfs:\n  read: [/data]\n  deny: [/data/private]\n"
    policy = Policy.from_text(text, source="policy.yml")
    yes = policy.explain("read", "/data/x")
    assert yes
    assert yes.allowed
    assert yes.place == "policy.yml:3"
    assert yes.grant is None
    no = policy.explain("read", "/data/private/x")
    assert not no
    assert no.place == "policy.yml:4"
    assert no.rule is not None
    missing = policy.explain("write", "/data/x")
    assert not missing
    assert missing.rule is None
    assert "no rule matched" in str(missing)
    assert missing.near
    with pytest.raises(ValueError, match="no act"):
        policy.explain("look", "/data")


@pytest.mark.parametrize(
    "act",
    [
        ("read", "/data/x.csv"),
        ("write", "/out/y z"),
        ("connect", "db.internal:5432"),
        ("connect", "[2001:db8::1]:80"),
        ("resolve", "example.org"),
        ("get", "https://api.example.org/v1/x"),
        ("post", "http://h:8080/"),
        ("run", "git", "log", "--oneline"),
        ("reveal", "token"),
        ("clock", "time"),
        ("random",),
        ("send", "jobs"),
        ("receive", "jobs"),
        ("import", "os.path"),
        ("db.query",),
    ],
    ids=" ".join,
)
def test_the_grant_that_is_named_would_allow_it(act):
    missing = Policy().explain(*act)
    assert not missing
    assert Policy.from_text(f"version: 1\n{missing.grant}").allows(*act)
    named = eval(missing.python, vars(authorities))
    assert Policy().grant(named).allows(*act)


def test_diff_says_what_would_change():
    old = Policy().allow_read("/data").allow_import("math").cpu_budget(1_000)
    new = Policy().allow_read("/data/public").allow_import("math", "json").cpu_budget(2_000)
    difference = old.diff(new)
    assert difference
    assert any("json" in change.rule for change in difference.allowed)
    assert any("/data" in change.rule for change in difference.denied)
    assert [(it.limit, it.old, it.new) for it in difference.limits] == [("cpu_ms", 1_000, 2_000)]
    assert "json" in str(difference)
    assert not old.diff(old)


# --- by name --------------------------------------------------------------------------------------

TEMPLATES = [
    "stdlib.readonly",
    "readonly-fs",
    "web-scraper",
    "ml-inference",
    "data-analysis",
    "compute-only",
]


@pytest.mark.parametrize("name", [*TEMPLATES, "ml", "web_scraper"])
def test_templates_go_by_name(name):
    policy = resolve_policy(name)
    assert policy == Policy.template(name)
    assert policy.rules
    assert not policy.allows("write", "/etc/passwd")


@pytest.mark.parametrize("name", ["", "nope", "compute_onyl", "Policy"])
def test_an_unknown_name_fails_closed_and_lists_the_names(name):
    with pytest.raises(PolicyError) as caught:
        resolve_policy(name)
    for known in TEMPLATES:
        assert known in str(caught.value)


def test_a_policy_is_found_whatever_names_it(tmp_path):
    text = "version: 1\ndefaults: {imports: [math]}\ncells: {worker: {imports: [json]}}\n"
    file = tmp_path / "policy.yml"
    file.write_text(text)
    defaults = Policy().allow_import("math")
    worker = defaults.allow_import("json")
    for given in (str(file), file):
        assert resolve_policy(given) == defaults
        assert resolve_policy(given, "other") == defaults
        assert resolve_policy(given, "worker") == worker
    as_dict = {"defaults": {"imports": ["math"]}, "cells": {"worker": {"imports": ["json"]}}}
    assert resolve_policy(as_dict, "worker") == worker
    assert resolve_policy(worker) is worker
    assert resolve_policy(None) == Policy()


def test_what_is_no_policy(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        resolve_policy(tmp_path / "missing.yml")
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="cannot be read"):
        resolve_policy(binary)
    with pytest.raises(PolicyError, match=r"\.yml"):
        resolve_policy(tmp_path / "policy.txt")
    with pytest.raises(PolicyError, match="plain data"):
        resolve_policy({"fs": object()})
    with pytest.raises(TypeError, match="no policy"):
        resolve_policy(5)
