"""The classes that attacks are grouped by: the ways in which sandboxes for Python were broken."""

CLASSES = {
    "names": "Class walks, format strings, tracebacks, frames and getattr lead past any filter on "
    "names or syntax. Here they find functions that the kernel refuses.",
    "memory": "ctypes, machine code and broken bytecode do what they like to the interpreter. What "
    "they ask of the kernel is refused all the same.",
    "calls": "System calls, numbers, flags and options that a list may have forgotten: each by "
    "number, with its x32 twin, `clone` and `clone3` by flag, mounts old and new, io_uring.",
    "files": "The host's files, folders, /proc, /sys and devices: read, listed, changed.",
    "egress": "Ways out by other doors: every socket family and type, abstract names, netlink, "
    "vsock, socket pairs, the channel itself.",
    "hosts": "One host, spelled in ways that two readers read differently: octal, decimal, mapped "
    "addresses, wide digits; under a policy that grants everything but this machine.",
    "paths": "Files beside granted ones, by dots, links, chains of links, handed-over descriptors "
    "and /proc, for the broker to open.",
    "later": "Files written now and run later: the cell's own standard library, packages, devices.",
    "processes": "New processes and programs; signals to others, their memory and descriptors.",
    "programs": "Programs that the broker runs: options slipped in where a pattern has a star.",
    "rights": "Identity, capabilities, filters, limits, and memory that nothing counts.",
    "outlive": "Work that goes on after its time limit: handlers, finalizers, generators, threads.",
    "worker": "A worker that answers its host with nonsense: frames outside the contract, pickles "
    "that call, pickles that grow.",
    "clones": "Cells that are clones of one process, and draw the same random numbers.",
    "empty": "An empty list, or none at all, that is read as permission for everything.",
    "shared": "The process that a sub-interpreter cell shares with its host: descriptors, "
    "settings, signals, modules, objects.",
}
"""Name, and what its attacks try. In the order in which they are reported."""
