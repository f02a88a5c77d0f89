"""A policy that is changed while its cell runs holds from the next request on."""

from pathlib import Path

from pyisolate import Policy, ReadPath
from pyisolate.conformance.host import TOKEN, Driven, Host
from pyisolate.conformance.program import Group

GROUP = Group("reload")


def _document(host: Host, *lines: str) -> Path:
    path = host.folder / "policy.yml"
    path.write_text("version: 1\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def _file(host: Host) -> Path:
    path = host.folder / "data" / "file"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"content")
    return path


def _tries(cell: Driven, path: Path) -> None:
    cell.run(
        f"try: post(open({str(path)!r}, 'rb').read())\nexcept PermissionError as e: post(str(e))"
    )


@GROUP.program()
def a_new_document_holds_for_the_next_request(host: Host) -> None:
    path = _file(host)
    cell = host.spawn(policy=_document(host))
    _tries(cell, path)
    document = _document(host, f"fs: {{read: {path.parent}}}")
    host.told("reloaded", host.supervisor.reload_policy(document, TOKEN))
    _tries(cell, path)
    host.supervisor.reload_policy(_document(host, "fs: {}"), TOKEN)
    _tries(cell, path)
    cell.denials()


@GROUP.program()
def each_cell_has_its_own_part(host: Host) -> None:
    path = _file(host)
    document = _document(host)
    one, two = host.spawn(policy=document), host.spawn(policy=document)
    _document(host, f"cells: {{cell-1: {{fs: {{read: {path.parent}}}}}}}")
    host.told("reloaded", sorted(host.supervisor.reload_policy(document, TOKEN)))
    _tries(one, path)
    _tries(two, path)


@GROUP.program()
def cells_without_a_document_keep_what_they_have(host: Host) -> None:
    path = _file(host)
    cells = [host.spawn(policy=Policy()), host.spawn(policy="compute-only"), host.spawn()]
    document = _document(host, f"fs: {{read: {path.parent}}}")
    host.told("reloaded", host.supervisor.reload_policy(document, TOKEN))
    for cell in cells:
        _tries(cell, path)


def _reload(host: Host, document: Path, token: str, *says: str) -> None:
    host.attempt(lambda: host.supervisor.reload_policy(document, token), says=says)


@GROUP.program()
def a_wrong_token_changes_nothing(host: Host) -> None:
    path = _file(host)
    cell = host.spawn(policy=_document(host))
    document = _document(host, f"fs: {{read: {path.parent}}}")
    for token in ("wrong", TOKEN[:-1], TOKEN.upper()):
        host.write("reload with a wrong token")
        _reload(host, document, token)
    _tries(cell, path)


@GROUP.program()
def a_document_that_is_none_changes_nothing(host: Host) -> None:
    path = _file(host)
    cell = host.spawn(policy=_document(host, f"fs: {{read: {path.parent}}}"))
    for line in ("fs: {raed: /x}", "fs: [", "extends: nope"):
        host.write(f"reload of {line}")
        _reload(host, _document(host, line), TOKEN, "policy.yml:")
    _tries(cell, path)


@GROUP.program()
def by_the_host_for_one_cell(host: Host) -> None:
    path = _file(host)
    cell = host.spawn(policy=Policy())
    _tries(cell, path)
    cell.cell.set_policy(Policy().grant(ReadPath(path.parent)))
    _tries(cell, path)
    cell.cell.set_policy({"version": 1})
    _tries(cell, path)
    host.write("set_policy of what is none")
    host.attempt(lambda: cell.cell.set_policy("nope"))


@GROUP.program()
def what_spawn_granted_beside_the_policy_stays(host: Host) -> None:
    cell = host.spawn(
        policy=_document(host),
        capabilities={"own": lambda payload: payload},
        allowed_imports=["math"],
    )
    host.supervisor.reload_policy(_document(host, "imports: [json]"), TOKEN)
    cell.run("post(request('own', 'x', 5))")
    cell.call("math.gcd", 4, 6)


@GROUP.program()
def imports_can_be_added(host: Host) -> None:
    cell = host.spawn(policy=_document(host))
    cell.exec("import json")
    host.supervisor.reload_policy(_document(host, "imports: [json]"), TOKEN)
    cell.run("import json\npost(json.dumps([1]))")


@GROUP.program()
def a_handle_is_asked_about_at_each_use(host: Host) -> None:
    path = _file(host)
    cell = host.spawn(policy=_document(host, f"fs: {{allow: {path.parent}}}"))
    cell.run(
        f"h = request('filesystem', 'open', {{'path': {str(path)!r}, 'mode': 'r+'}})['handle']\n"
        "post(request('filesystem', 'read', {'handle': h, 'length': 3}))"
    )
    host.supervisor.reload_policy(_document(host, "fs: {}"), TOKEN)
    cell.run(
        "try: request('filesystem', 'read', {'handle': h, 'length': 3})\n"
        "except PermissionError as e: post(str(e))"
    )


@GROUP.program()
def policies_that_are_none(host: Host) -> None:
    for policy in ("nope", {"version": 1, "fss": {}}, {"version": 9}, {"limits": {"cpu_ms": -1}}):
        host.write(f"policy={policy!r}")
        host.refuse_spawn(policy=policy)
    host.still_serves()
