"""Policies: what a cell may have, as objects and as text.

A policy is a list of rules and some limits. The first denial that matches an act refuses it; else
the last grant that matches allows it; what no rule matches is denied. A rule that is written in a
file remembers its line, and whatever it decides says so.

    policy = Policy.template("compute-only").allow_read("/data").cpu_budget(5_000)
    print(policy.explain("read", "/data/x.csv"))
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pyisolate import _core
from pyisolate.authorities import (
    KINDS,
    Authority,
    AuthoritySet,
    ConnectTCP,
    CpuBudget,
    Import,
    Limit,
    PathText,
    ReadPath,
    ReadWritePath,
    WritePath,
)
from pyisolate.errors import PolicyError

type PolicyFormat = Literal["yaml", "toml", "json"]
"""A text's form."""
_FORMATS: Mapping[str, PolicyFormat] = {
    ".yml": "yaml",
    ".yaml": "yaml",
    ".toml": "toml",
    ".json": "json",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy says to an act, and why. True if it may be done; `str()` says why not."""

    allowed: bool
    act: str
    """What was asked, for people."""
    rule: str | None
    """The rule that decided, as a line of the policy text; `None` if none matched."""
    place: str | None
    """Where that rule was written: `policy.yml:7`."""
    reason: str
    """One or two sentences."""
    near: tuple[str, ...]
    """Grants that almost matched, each with what is different."""
    grant: str | None
    """The smallest grant that would allow it, as lines of YAML to paste into a policy."""
    python: str | None
    """The same grant as an authority."""

    def __bool__(self) -> bool:
        return self.allowed

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule that makes a difference between two policies."""

    rule: str
    """As a line of the policy text."""
    place: str
    """Where it was written."""
    why: str
    """`granted`, `no longer denied`, `denied` or `no longer granted`."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One limit that differs between two policies."""

    limit: str
    old: float
    new: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What another policy would newly allow and newly deny. True if there is any difference."""

    allowed: tuple[RuleChange, ...]
    denied: tuple[RuleChange, ...]
    limits: tuple[LimitChange, ...]
    text: str
    """All of it for people."""

    def __bool__(self) -> bool:
        return bool(self.allowed or self.denied or self.limits)

    def __str__(self) -> str:
        return self.text


class Policy:
    """What one cell may have. It does not change: every method that adds returns a new policy.

    Policies are equal if their texts are, wherever their rules were written.
    """

    __slots__ = ("_inner",)
    _inner: _core.Policy

    def __init__(self) -> None:
        object.__setattr__(self, "_inner", _core.Policy())

    @classmethod
    def _of(cls, core: _core.Policy) -> Self:
        made = object.__new__(cls)
        object.__setattr__(made, "_inner", core)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a policy does not change: its methods return new ones")

    # --- from and to text

    @classmethod
    def from_text(
        cls,
        text: str,
        format: PolicyFormat = "yaml",
        *,
        source: str = "<text>",
        cell: str | None = None,
    ) -> Self:
        """Read a policy document. `source` is what its rules' places begin with.

        `cell`: for which cell; one that the document does not list, or `None`, has the defaults.
        Raises `PolicyError` with each mistake's line and column and what to do about it.
        """
        return cls._of(_core.Policy.from_text(text, source, format, cell))

    @classmethod
    def from_file(cls, path: PathText, cell: str | None = None) -> Self:
        """Read a policy document from a file that ends in .yml, .yaml, .toml or .json."""
        text, source, format = read_document(path)
        return cls.from_text(text, format, source=source, cell=cell)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, cell: str | None = None) -> Self:
        """Read a policy document that was parsed already. It may leave `version` out."""
        try:
            text = json.dumps({"version": 1, **document}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PolicyError(f"the policy is not made of plain data: {error}") from None
        return cls.from_text(text, "json", source="<dict>", cell=cell)

    @classmethod
    def template(cls, name: str) -> Self:
        """A policy that comes with the package; `PolicyError` for a name that none has."""
        return cls._of(_core.Policy.template(name))

    def to_yaml(self) -> str:
        """A YAML document whose `defaults` are this policy."""
        return self._inner.to_yaml()

    def to_toml(self) -> str:
        """A TOML document whose `defaults` are this policy."""
        return self._inner.to_toml()

    def to_json(self) -> str:
        """A JSON document whose `defaults` are this policy."""
        return self._inner.to_json()

    def to_dict(self) -> dict[str, Any]:
        """The document as plain data: `Policy.from_dict(policy.to_dict()) == policy`."""
        document: dict[str, Any] = json.loads(self._inner.to_json())
        return document

    # --- more rules

    def grant(self, *authorities: Authority | AuthoritySet) -> Self:
        """With these granted, after the rules that are there."""
        return self._with("allow", authorities)

    def deny(self, *authorities: Authority | AuthoritySet) -> Self:
        """With these denied. A denial wins over every grant. Limits cannot be denied."""
        return self._with("deny", authorities)

    def _with(
        self, effect: Literal["allow", "deny"], authorities: Iterable[Authority | AuthoritySet]
    ) -> Self:
        rules = []
        for given in authorities:
            # The set says what is wrong with anything else.
            several = given if isinstance(given, AuthoritySet) else AuthoritySet(given)
            rules += [(authority.kind, authority.fields()) for authority in several]
        return self._of(self._inner.with_rules(effect, rules))

    def allow_fs(self, *paths: PathText) -> Self:
        """With reading and writing these."""
        return self.grant(*map(ReadWritePath, paths))

    def allow_read(self, *paths: PathText) -> Self:
        """With reading these."""
        return self.grant(*map(ReadPath, paths))

    def allow_write(self, *paths: PathText) -> Self:
        """With writing these, not reading them."""
        return self.grant(*map(WritePath, paths))

    def allow_tcp(self, *addresses: str, private: bool = False) -> Self:
        """With TCP streams to these, each as `host:port`."""
        return self.grant(*(ConnectTCP.from_address(it, private=private) for it in addresses))

    def allow_import(self, *modules: str) -> Self:
        """With importing these and what is below them."""
        return self.grant(*map(Import, modules))

    def cpu_budget(self, ms: int) -> Self:
        """With so much CPU time for the cell's life."""
        return self.grant(CpuBudget(ms))

    def limit(self, **limits: float) -> Self:
        """With these limits, by their keywords in `spawn`."""
        return self.grant(*(Limit(name, value) for name, value in limits.items()))

    def extends(self, base: "str | Policy") -> Self:
        """With the rules and limits of a template or another policy before its own."""
        return self._of(resolve_policy(base)._inner.extended(self._inner))

    def __or__(self, other: "Policy") -> Self:
        """Both policies' rules; where limits differ, the right one's."""
        if not isinstance(other, Policy):
            return NotImplemented
        return self._of(self._inner.extended(other._inner))

    # --- what it says

    @property
    def rules(self) -> tuple[tuple[Literal["allow", "deny"], Authority], ...]:
        """Its rules in their order: `allow` or `deny`, and what of."""
        return tuple(
            (effect, KINDS[kind].of(checked)) for effect, kind, checked in self._inner.rules()
        )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that it sets, by their keywords in `spawn`."""
        return self._inner.limits()

    def explain(self, verb: str, *target: str) -> Explanation:
        """Whether an act may be done, by which rule, and what would change that.

            policy.explain("read", "/data/x.csv")
            policy.explain("connect", "db.internal:5432")
            policy.explain("post", "https://api.example.org/v1")
            policy.explain("run", "git", "status")
            policy.explain("db.query")

        Raises `ValueError` for words that are no act.
        """
        return Explanation(*self._inner.explain(verb, list(target)))

    def allows(self, verb: str, *target: str) -> bool:
        """Whether an act may be done, said as in `explain`."""
        return self._inner.allows(verb, list(target))

    def diff(self, new: "Policy") -> Difference:
        """What `new`, put in this one's place, would newly allow and newly deny."""
        allowed, denied, limits, text = self._inner.diff(new._inner)
        return Difference(
            tuple(RuleChange(*change) for change in allowed),
            tuple(RuleChange(*change) for change in denied),
            tuple(LimitChange(*change) for change in limits),
            text,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return self._inner == other._inner

    def __hash__(self) -> int:
        return hash(self._inner)

    def __repr__(self) -> str:
        calls = [
            f".{'grant' if effect == 'allow' else 'deny'}({authority!r})"
            for effect, authority in self.rules
        ]
        if limits := self.limits:
            calls.append(f".limit({', '.join(f'{name}={it}' for name, it in limits.items())})")
        return "Policy()" + "".join(calls)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_from_json, (self.to_json(),))


def _from_json(text: str) -> Policy:
    return Policy.from_text(text, "json", source="")


type PolicyLike = str | os.PathLike[str] | Mapping[str, Any] | Policy
"""A template's name, a file, a document as plain data, or a policy."""


def resolve_policy(policy: PolicyLike | None, cell: str | None = None) -> Policy:
    """The policy that is meant.

    Text with a slash in it, or that ends in .yml, .yaml, .toml or .json, is a file's path; other
    text is a template's name. `cell` is the cell whose part of a document is wanted.

    Raises `PolicyError` for a template that there is not, with the names of those that there are,
    and for a file that cannot be read.
    """
    match policy:
        case None:
            return Policy()
        case Policy():
            return policy
        case str() if not is_path(policy):
            return Policy.template(policy)
        case str() | os.PathLike():
            return Policy.from_file(policy, cell)
        case Mapping():
            return Policy.from_dict(policy, cell=cell)
        case _:
            raise TypeError(
                f"policy={policy!r} is no policy: give a template's name, a file's path, a dict "
                "or a Policy"
            )


def is_path(policy: str) -> bool:
    """Whether the text is a file's path, and no template's name."""
    return "/" in policy or policy.endswith(tuple(_FORMATS))


def read_document(path: PathText) -> tuple[str, str, PolicyFormat]:
    """A file's text, the name by which its rules' places call it, and its form."""
    path = Path(path)
    format = _FORMATS.get(path.suffix)
    if format is None:
        raise PolicyError(
            f"{path}: what form is it? A policy's name ends in .yml, .yaml, .toml or .json"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy {path} cannot be read: {error}") from error
    # Its folder is the host's business: a guest is told a rule's place.
    return text, path.name, format
