"""Attacks on the kernel's other doors: mounts, namespaces, identity, memory, and rare calls."""

from pyisolate.attack.case import Attack

MOUNTING = [
    Attack(
        "mount: libc",
        "libc('mount', path('none'), path(world['mount_point']), path('tmpfs'), 0, 0)",
        "EPERM",
        privileged=True,
    ),
    Attack(
        "mount: raw",
        "raw('mount', path('none'), path(world['mount_point']), path('tmpfs'), 0, 0)",
        "EPERM",
        privileged=True,
    ),
    Attack(
        "mount: another view of the processes",
        "raw('mount', path('proc'), path('/proc'), path('proc'), 0, 0)",
        "EPERM",
        privileged=True,
    ),
    Attack(
        "mount: make the root writable",
        "raw('mount', 0, path('/'), 0, 0x1000 | 0x20, 0)",  # MS_BIND | MS_REMOUNT
        "EPERM",
        privileged=True,
        fresh_root=True,
        lacking="EINVAL",
    ),
    Attack(
        "mount: the new calls",
        """
        context = raw("fsopen", path("tmpfs"), 0)
        raw("fsconfig", context, 6, 0, 0, 0)  # FSCONFIG_CMD_CREATE
        tree = raw("fsmount", context, 0, 0)
        target = path(world["mount_point"])
        raw("move_mount", tree, path(""), -100, target, 4)  # MOVE_MOUNT_F_EMPTY_PATH
        """,
        "EPERM",
        privileged=True,
    ),
    Attack(
        "mount: open_tree",
        "raw('open_tree', -100, path(world['mount_point']), 1)",
        "EPERM",
        privileged=True,
    ),
    Attack(
        "mount: mount_setattr",
        "raw('mount_setattr', -100, path('/dev'), 0, struct.pack('4Q', 1, 0, 0, 0), 32)",
        "EPERM",
        privileged=True,
        lacking="EINVAL",
    ),
    Attack(
        "umount",
        """
        try:
            raw("mount", path("none"), path(world["mount_point"]), path("tmpfs"), 0, 0)
        except OSError:
            pass  # the wall; take something away all the same
        raw("umount2", path(world["mount_point"]), 2)
        """,
        "EPERM",
        privileged=True,
    ),
    Attack(
        "pivot_root",
        """
        new = path(world["mount_point"])
        try:
            raw("mount", path("none"), new, path("tmpfs"), 0, 0)
        except OSError:
            pass  # the wall; try the next call all the same
        raw("pivot_root", new, new)
        """,
        "EPERM",
        privileged=True,
    ),
    Attack("chroot: os.chroot", "os.chroot('/dev')", "EPERM", privileged=True),
    Attack("chroot: raw", "raw('chroot', path('/dev'))", "EPERM", privileged=True),
]

NAMESPACES = [
    Attack("namespace: os.unshare", "os.unshare(os.CLONE_NEWUSER)", "EPERM", lone=True),
    Attack("namespace: raw unshare", "raw('unshare', os.CLONE_NEWUSER)", "EPERM", lone=True),
    Attack(
        "namespace: setns",
        """
        try:
            namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
        except OSError:
            namespace = 0  # no door, but the call is tried all the same
        os.setns(namespace, 0)
        """,
        "EPERM",
        privileged=True,
    ),
    Attack(
        "namespace: raw setns",
        """
        try:
            namespace = os.open("/proc/self/ns/uts", os.O_RDONLY)
        except OSError:
            namespace = 0  # no door, but the call is tried all the same
        raw("setns", namespace, 0)
        """,
        "EPERM",
        privileged=True,
    ),
    Attack(
        "namespace: host name",
        "import socket; socket.sethostname('mine')",
        "EPERM",
        privileged=True,
    ),
    Attack("namespace: host name, raw", "raw('sethostname', b'mine', 4)", "EPERM", privileged=True),
]

IDENTITY = [
    Attack("identity: os.setuid", "os.setuid(os.getuid())", "EPERM"),
    Attack("identity: raw setresuid", "raw('setresuid', *[os.getuid()] * 3)", "EPERM"),
    Attack("identity: raw setgid", "raw('setgid', os.getgid())", "EPERM"),
    Attack(
        "identity: take capabilities back",
        """
        every = struct.pack("6I", *[0xFFFFFFFF, 0xFFFFFFFF, 0] * 2)
        raw("capset", struct.pack("Ii", 0x20080522, 0), every)
        """,
        "EPERM",
        privileged=True,
    ),
    Attack(
        "identity: touch capabilities at all",
        "raw('capset', struct.pack('Ii', 0x20080522, 0), bytes(24))",
        "EPERM",
    ),
    Attack("identity: a session of its own", "os.setsid()", "EPERM"),
    Attack("identity: be dumpable", "libc('prctl', 4, 1, 0, 0, 0)", "EPERM"),
    Attack("identity: be dumpable, raw", "raw('prctl', 4, 1, 0, 0, 0)", "EPERM"),
    Attack("identity: outlive the parent", "raw('prctl', 1, 0, 0, 0, 0)", "EPERM"),
    Attack(
        "identity: another filter",
        # SECCOMP_SET_MODE_FILTER, with a program of one instruction: allow
        """
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), 8)
        program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
        raw("seccomp", 1, 0, program)
        """,
        "EPERM",
    ),
    Attack(
        "identity: another filter, by prctl",
        """
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), 8)
        program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
        raw("prctl", 22, 2, program, 0, 0)
        """,
        "EPERM",
    ),
]

LIMITS = [
    Attack(
        "limits: raise open files",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))",
        "EPERM ValueError",
    ),
    Attack(
        "limits: raise open files, raw",
        "raw('prlimit64', 0, 7, struct.pack('QQ', 128, 128), 0)",
        "EPERM",
    ),
    Attack(
        "limits: many files all the same",
        """
        opened = []
        try:
            for _ in range(100):
                opened.append(os.open("/", os.O_RDONLY))
        finally:
            for descriptor in opened:
                os.close(descriptor)
        """,
        "EMFILE",
    ),
    Attack(
        "limits: nice",
        "os.setpriority(os.PRIO_PROCESS, 0, 5)",
        "EPERM",
    ),
    Attack("limits: lock memory", "raw('mlock', ctypes.create_string_buffer(8), 8)", "EPERM"),
]

MEMORY = [
    Attack(
        "memory: shared, which nothing counts",
        "import mmap; mmap.mmap(-1, 4096).close()",
        "EPERM",
    ),
    Attack("memory: shared, raw", "raw('mmap', 0, 4096, 3, 0x21, -1, 0)", "EPERM"),
    Attack("memory: memory file", "os.close(os.memfd_create('x'))", "EPERM"),
    Attack("memory: memory file, raw", "raw('memfd_create', path('x'), 0)", "EPERM"),
    Attack(
        "memory: multiprocessing's",
        """
        from multiprocessing import shared_memory
        memory = shared_memory.SharedMemory(create=True, size=4096, track=False)
        memory.close()
        memory.unlink()
        """,
        "ENOENT EPERM",
    ),
    Attack("memory: System V", "raw('shmget', 0, 4096, 0o1600)", "EPERM"),
    Attack(
        "memory: message queue",
        "raw('mq_open', path('x'), os.O_CREAT | os.O_RDWR, 0o600, 0)",
        "EPERM",
        lacking="ENOSYS",
    ),
]

RARE = [
    Attack("keyring: join", "raw('keyctl', 1, 0)", "EPERM", lacking="ENOSYS"),
    Attack(
        "keyring: add",
        "raw('add_key', path('user'), path('pyisolate-test'), b'x', 1, -2)",
        "EPERM",
        lacking="ENOSYS",
    ),
    Attack(
        "userfaultfd",
        "os.close(raw('userfaultfd', 1 | os.O_CLOEXEC))",  # UFFD_USER_MODE_ONLY
        "EPERM",
        lacking="ENOSYS",
    ),
    Attack(
        "io_uring",
        "os.close(raw('io_uring_setup', 1, ctypes.create_string_buffer(120)))",
        "EPERM",
        lacking="ENOSYS EPERM",
    ),
    Attack("personality", "return raw('personality', 0xFFFFFFFF)", "EPERM"),
    Attack(
        "fanotify",
        "os.close(raw('fanotify_init', 0x200, 0))",  # FAN_REPORT_FID, which needs no privilege
        "EPERM",
        lacking="ENOSYS EPERM",
    ),
    Attack("inotify", "os.close(raw('inotify_init1', 0))", "EPERM"),
    Attack(
        "Landlock, once more",
        "return raw('landlock_create_ruleset', 0, 0, 1)",
        "EPERM",
        lacking="ENOSYS EOPNOTSUPP",
    ),
    Attack(
        "terminal: put input into one",
        """
        import fcntl
        try:
            _, terminal = os.openpty()
            os.setsid()
            fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY
        except OSError:
            terminal = 0  # no terminal, but the call is tried all the same
        fcntl.ioctl(terminal, 0x5412, b"x")  # TIOCSTI
        """,
        "EPERM",
        lacking="EIO",
    ),
    Attack(
        "terminal: put input into one, raw, by a number of 64 bits",
        """
        try:
            _, terminal = os.openpty()
            os.setsid()
            raw("ioctl", terminal, 0x540E, 0)  # TIOCSCTTY
        except OSError:
            terminal = 0  # no terminal, but the call is tried all the same
        raw("ioctl", terminal, 0x5412 | 1 << 32, b"x")  # TIOCSTI
        """,
        "EPERM",
        lacking="EIO",
    ),
]

ATTACKS = MOUNTING + NAMESPACES + IDENTITY + LIMITS + MEMORY + RARE
