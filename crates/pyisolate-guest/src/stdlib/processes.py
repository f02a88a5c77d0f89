# ruff: noqa: PTH100, PTH109
"""Programs: `subprocess`, over the broker's `run`.

The broker runs a granted program from its beginning to its end and tells what it wrote. So a
`Popen` starts when its result is first asked for (`communicate`, `wait`, `poll`, or a read of its
output), with everything that was written to its input by then.
"""

import io
import os
import sys

broker = None
subprocess = None


def install(link):
    """Keeps the broker."""
    global broker
    broker = link


# What would change how the host starts the program, which the policy fixes. The defaults are those
# that ask for nothing.
_FIXED = {
    "executable": None,
    "preexec_fn": None,
    "startupinfo": None,
    "pass_fds": (),
    "user": None,
    "group": None,
    "extra_groups": None,
    "umask": -1,
}


def _refuse_what_is_fixed(shell, cwd, env, options):
    if shell:
        raise broker.refusal(
            "shell=True: a cell has no shell; give the program and its arguments as a list"
        )
    if cwd is not None and os.path.abspath(os.fsdecode(cwd)) != os.getcwd():
        raise broker.refusal("cwd=: the policy fixes the folder that a granted program runs in")
    if env is not None and dict(env) != dict(os.environ):
        raise broker.refusal("env=: the policy fixes the environment of a granted program")
    for name, default in _FIXED.items():
        if options.get(name, default) != default:
            raise broker.refusal(f"{name}=: the policy fixes how a granted program is started")


class _Output(io.RawIOBase):
    """A program's output: the first read of it runs the program."""

    def __init__(self, process, name):
        self._process = process
        self._which = name
        self._data = None

    def readable(self):
        return True

    def readinto(self, buffer):
        if self._data is None:
            self._process._finish(None)
            self._data = io.BytesIO(self._process._written[self._which])
        return self._data.readinto(buffer)


class _Input(io.BytesIO):
    """What is written to a program's input; it stays readable for the run after the close."""

    def close(self):
        self.closed_data = self.getvalue() if not self.closed else self.closed_data
        super().close()

    def whole(self):
        return self.closed_data if self.closed else self.getvalue()


def patch(module):
    """Replaces `subprocess.Popen`."""
    global subprocess
    subprocess = module
    native = module.Popen
    module.Popen = type("Popen", (_Popen, native), {"__doc__": native.__doc__})
    module.Popen.__module__ = "subprocess"


def patch_platform(module):
    """The processor's name is not worth running a program for."""
    module._Processor.from_subprocess = staticmethod(lambda: "")


def patch_synchronize(module):
    """A cell is one process: its threads' locks do what locks between processes would."""
    import threading

    def kind(make, original):
        return broker.like(lambda *args, ctx=None: make(*args), original)

    # Their methods take what those of `multiprocessing` take; a `threading.Lock` does not.
    module.Lock = kind(lambda: threading.BoundedSemaphore(1), module.Lock)
    for name in ("RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"):
        setattr(module, name, kind(getattr(threading, name), getattr(module, name)))


class _Popen:
    _child_created = False  # what the native finalizer asks
    pid = None

    def __init__(
        self,
        args,
        bufsize=-1,
        executable=None,
        stdin=None,
        stdout=None,
        stderr=None,
        preexec_fn=None,
        close_fds=True,
        shell=False,
        cwd=None,
        env=None,
        universal_newlines=None,
        startupinfo=None,
        creationflags=0,
        restore_signals=True,
        start_new_session=False,
        pass_fds=(),
        *,
        user=None,
        group=None,
        extra_groups=None,
        encoding=None,
        errors=None,
        text=None,
        umask=-1,
        pipesize=-1,
        process_group=None,
    ):
        given = locals()
        _refuse_what_is_fixed(shell, cwd, env, {name: given[name] for name in _FIXED})
        self.args = args
        alone = isinstance(args, (str, bytes, os.PathLike))
        self._command = [os.fsdecode(part) for part in ([args] if alone else args)]
        if not self._command:
            raise ValueError("the command is empty")
        self.returncode = None
        self._written = None
        self._targets = {"stdout": stdout, "stderr": stderr}
        if stdout == subprocess.STDOUT:
            raise ValueError("STDOUT can only be used for stderr")
        self.text_mode = bool(text or universal_newlines or encoding or errors)
        self.encoding = encoding or "utf-8"
        self.errors = errors or "strict"
        self._given = stdin
        self._input = _Input() if stdin == subprocess.PIPE else None
        self.stdin = self._as_text(self._input, write_through=True) if self._input else None
        self.stdout = self._reader("stdout")
        self.stderr = self._reader("stderr")

    def _as_text(self, binary, **options):
        if not self.text_mode:
            return binary
        return io.TextIOWrapper(binary, encoding=self.encoding, errors=self.errors, **options)

    def _reader(self, name):
        if self._targets[name] != subprocess.PIPE:
            return None
        return self._as_text(io.BufferedReader(_Output(self, name)))

    def __repr__(self):
        return f"<Popen: returncode: {self.returncode} args: {self.args!r}>"

    def __del__(self):
        pass  # there is no process to be reaped

    def __exit__(self, kind, value, traceback):
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                stream.close()
        if kind is None:
            self.wait()

    # --- the run ------------------------------------------------------------------------------

    def _input_bytes(self):
        if self._input is not None:
            if not self.stdin.closed:
                self.stdin.flush()
            return self._input.whole()
        source = self._given
        if source is None or source == subprocess.DEVNULL:
            return b""
        if isinstance(source, int):
            parts = []
            while part := os.read(source, 1 << 20):
                parts.append(part)
            return b"".join(parts)
        data = source.read()
        return data.encode(self.encoding) if isinstance(data, str) else bytes(data)

    def _finish(self, timeout):
        if self.returncode is not None:
            return
        program, *arguments = self._command
        payload = {"program": program, "args": arguments, "stdin": self._input_bytes()}
        if timeout is not None:
            payload["timeout"] = max(0.0, float(timeout))
        try:
            told = broker.ask("subprocess", "run", payload, program)
        except TimeoutError:
            self._end(-9, b"", b"")  # the broker killed it
            if timeout is None:
                raise
            raise subprocess.TimeoutExpired(self.args, timeout) from None
        except BaseException:
            self._end(-9, b"", b"")
            raise
        self._end(told["returncode"], told["stdout"], told["stderr"])

    def _end(self, returncode, stdout, stderr):
        self.returncode = returncode
        if self._targets["stderr"] == subprocess.STDOUT:
            stdout, stderr = stdout + stderr, b""
        self._written = {"stdout": stdout, "stderr": stderr}
        for name, data in self._written.items():
            _put(data, self._targets[name], getattr(sys, name))

    def communicate(self, input=None, timeout=None):
        """Runs the program with this input; what it wrote to the pipes."""
        if input is not None:
            if self.stdin is None:
                raise ValueError("Cannot send input after starting communication")
            self.stdin.write(input)
        if self.stdin is not None:
            self.stdin.close()
        self._finish(timeout)
        return tuple(
            None if stream is None else "" if stream.closed and self.text_mode
            else b"" if stream.closed else stream.read()
            for stream in (self.stdout, self.stderr)
        )  # fmt: skip

    def wait(self, timeout=None):
        """Runs the program; its exit status."""
        self._finish(timeout)
        return self.returncode

    def poll(self):
        """Runs the program; its exit status."""
        return self.wait()

    def send_signal(self, sig):
        """Before the run: there will be none. After it: nothing is left to signal."""
        if self.returncode is None:
            self._end(-int(sig), b"", b"")

    def terminate(self):
        """As `send_signal(SIGTERM)`."""
        self.send_signal(15)

    def kill(self):
        """As `send_signal(SIGKILL)`."""
        self.send_signal(9)


def _put(data, target, own):
    """Writes output to where the caller wanted it; None is the cell's own stream."""
    if not data or target in (subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT):
        return
    if target is None:
        own.write(data.decode("utf-8", "backslashreplace"))
        own.flush()
    elif isinstance(target, int):
        with memoryview(data) as rest:
            sent = 0
            while sent < len(rest):
                sent += os.write(target, rest[sent:])
    else:
        binary = getattr(target, "buffer", None)
        if binary is None:
            target.write(data.decode() if isinstance(target, io.TextIOBase) else data)
        else:
            target.flush()
            binary.write(data)
            binary.flush()
