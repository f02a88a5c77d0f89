//! A program's jail: real programs of this host in it, what they can do, and what they cannot but
//! could outside.

#![expect(unsafe_code, reason = "the tests do what a hostile program does: raw system calls")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with its own harness is not recognised as one"
)]

#[path = "../common/mod.rs"]
mod common;
mod probe;
mod running;

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::Feature::{Seccomp, Userns};
use common::wait;
use probe::{PROBE, probing};
use pyisolate_jail::{CommandError, LayerName, Report, Status, Support};
use running::{Running, Trial, outside, shell, shell_outside, trial};

fn main() {
    if let Some(name) =
        std::env::args().nth(2).filter(|_| std::env::args().nth(1).unwrap() == PROBE)
    {
        return probe::probe(&name);
    }
    let needs = &[Userns, Seccomp][..];
    common::run(&[
        ("command: output, status and input are the program's", needs, input_and_output),
        ("command: signals end it as they should", needs, signals_end_it),
        ("command: the environment is what was given", needs, environment_is_exact),
        ("command: git runs", needs, git_runs),
        ("command: what cannot be executed is said", needs, what_cannot_be_executed),
        ("command: every layer is reported", needs, every_layer_is_reported),
        ("command: no file of the host's but the system's", needs, files_are_not_there),
        ("command: grants are shown, and read-only", needs, grants_are_read_only),
        ("command: a link on the way to a grant is refused", needs, links_are_refused),
        ("command: a grant that is not there is an error", needs, missing_grants_are_errors),
        ("command: only the scratch folder is written", needs, only_scratch_is_written),
        ("command: nothing written is executed", needs, scratch_is_not_executed),
        ("command: no network", needs, no_network),
        ("command: no other process", needs, no_other_process),
        ("command: calls of a hostile program are refused", needs, hostile_calls_are_refused),
        ("command: no capability, no privilege", needs, no_capability),
        ("command: nothing but standard streams", needs, descriptors_are_standard),
        ("command: a fork bomb is bounded and ends", needs, fork_bomb_ends),
        ("command: orphans are reaped and end with it", needs, orphans_end_with_it),
        ("command: memory and file size are limited", needs, memory_is_limited),
        ("command: ends when nobody listens", needs, ends_when_nobody_listens),
    ]);
}

/// A folder that anybody may read, with a secret in it.
fn planted() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.path().join("secret"), "planted").unwrap();
    directory
}

// --- what programs can do

fn input_and_output() {
    let outcome = trial("/bin/echo", &["a", "b c", ""]).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "a b c \n"), "{outcome:?}");
    let outcome = Trial { stdin: b"from outside".to_vec(), ..trial("/bin/cat", &[]) }.run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "from outside"));
    let outcome = shell("echo out; echo err >&2; exit 7").run();
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (7, "out\n", "err\n"));
    // Pipes, processes, threads and files of its own.
    let outcome = shell("seq 100 | sort -rn --parallel=2 > sorted; head -1 < sorted; pwd").run();
    assert_eq!((outcome.code, &*outcome.stdout), (0, "100\n/tmp\n"), "{outcome:?}");
    let outcome = shell("cat <(echo x) | tee >(cat) | wc -l; date +%s >/dev/null; id -un").run();
    assert!(outcome.stdout.ends_with("nobody\n"), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
}

fn signals_end_it() {
    for (script, signal) in
        [("kill -KILL $$", 9), ("kill -TERM $$", 15), ("kill -ABRT $$", 6), ("kill -SEGV $$", 11)]
    {
        let outcome = shell(script).run();
        assert_eq!(outcome.code, -signal, "{script}: {outcome:?}");
    }
    assert_eq!(probing("abort", &[]).run().code, -libc::SIGABRT);
}

fn environment_is_exact() {
    let outcome = trial("/usr/bin/env", &[]).run();
    assert_eq!(outcome.stdout, "PATH=/usr/local/bin:/usr/bin:/bin\nHOME=/tmp\n");
    assert!(outside("/usr/bin/env", &[]).stdout.lines().count() > 2, "control");
}

fn git_runs() {
    let Some(git) =
        ["/usr/local/bin/git", "/usr/bin/git"].into_iter().find(|it| Path::new(it).exists())
    else {
        return println!("        (skipped: no git)");
    };
    let outcome = trial(git, &["--version"]).run();
    assert!(outcome.code == 0 && outcome.stdout.starts_with("git version"), "{outcome:?}");
    let script = "set -e; git init -q repo; cd repo; echo x > f; git add f; \
                  git -c user.name=n -c user.email=e commit -qm m; git log --oneline | wc -l";
    let outcome = shell(script).run();
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "1"), "{outcome:?}");
}

fn what_cannot_be_executed() {
    for (program, errno) in [
        ("/usr/bin/there-is-no-such-program", libc::ENOENT),
        ("/etc/passwd", libc::EACCES),
        ("/usr", libc::EACCES),
    ] {
        let outcome = trial(program, &[]).run();
        assert_eq!(outcome.stderr, format!("not executed: {errno}"), "{program}");
        assert_eq!(outcome.code, 127);
    }
}

fn every_layer_is_reported() {
    let report = trial("/bin/true", &[]).run().report;
    let report = Report::decode(report.as_bytes()).unwrap();
    for line in report.to_string().lines() {
        println!("        {line}");
    }
    for name in [
        LayerName::UserNamespace,
        LayerName::PidNamespace,
        LayerName::MountNamespace,
        LayerName::IpcNamespace,
        LayerName::UtsNamespace,
        LayerName::NetworkNamespace,
        LayerName::Environment,
        LayerName::Root,
        LayerName::Capabilities,
        LayerName::NoNewPrivileges,
        LayerName::Landlock,
        LayerName::Seccomp,
        LayerName::Rlimits,
        LayerName::Descriptors,
        LayerName::Process,
    ] {
        let layer = report.get(name).unwrap_or_else(|| panic!("{name} is not reported"));
        if name == LayerName::Landlock {
            assert_eq!(layer.status == Status::Missing, Support::probe() == Support::Missing);
        } else {
            assert_eq!(layer.status, Status::Enforced, "{layer:?}");
        }
    }
}

// --- what they cannot

fn files_are_not_there() {
    let directory = planted();
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let secret = directory.path().join("secret");
    let secret = secret.to_str().unwrap();
    let script = format!("cat {secret}");
    assert_eq!(shell_outside(&script).stdout, "planted", "control");
    let outcome = shell(&script).run();
    assert!(outcome.code != 0 && outcome.stdout.is_empty(), "{outcome:?}");
    let listed = shell_outside(&format!("ls -d /etc/shadow /etc/hostname /run /var {home}"));
    assert!(listed.stdout.lines().count() >= 4, "control: {listed:?}");
    for path in ["/etc/shadow", "/etc/hostname", "/run", "/var", "/sys", "/root", &home] {
        let outcome = trial("/bin/ls", &["-d", path]).run();
        assert_ne!(outcome.code, 0, "{path}: {outcome:?}");
    }
    let outcome = trial("/bin/ls", &["/"]).run();
    let mut expected = vec!["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr"];
    expected.retain(|name| Path::new("/").join(name).exists());
    let more = ["lib32", "libx32"];
    let seen: Vec<_> = outcome.stdout.lines().filter(|name| !more.contains(name)).collect();
    assert!(seen == expected || seen.iter().all(|it| expected.contains(it)), "{seen:?}");
    assert_eq!(trial("/bin/cat", &["/etc/passwd"]).run().stdout.lines().count(), 1);
}

fn grants_are_read_only() {
    let directory = planted();
    let path = directory.path().to_str().unwrap();
    let outcome = shell(&format!("cat {path}/secret")).reading(directory.path()).run();
    assert_eq!(outcome.stdout, "planted", "{outcome:?}");
    for script in [
        format!("echo x > {path}/new"),
        format!("echo x > {path}/secret"),
        format!("rm {path}/secret"),
        format!("mv {path} /tmp/elsewhere"),
        format!("chmod 777 {path}/secret"),
    ] {
        let outcome = shell(&script).reading(directory.path()).run();
        assert_ne!(outcome.code, 0, "{script}: {outcome:?}");
    }
    assert_eq!(std::fs::read(directory.path().join("secret")).unwrap(), b"planted");
    // A single file, and nothing beside it.
    std::fs::write(directory.path().join("other"), "other").unwrap();
    let outcome = shell(&format!("ls {path}; cat {path}/secret"))
        .reading(&directory.path().join("secret"))
        .run();
    assert_eq!(outcome.stdout, "secret\nplanted");
}

fn links_are_refused() {
    let directory = planted();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    for path in [link.clone(), link.join("hostname")] {
        match trial("/bin/ls", &[]).reading(&path).start() {
            Err(CommandError::Root(error)) => assert!(whole(&error).contains("opening"), "{error}"),
            Err(other) => panic!("{other}"),
            // Not root: the first process says it.
            Ok(running) => {
                let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    running.finish();
                }));
                assert!(failed.is_err(), "the jail was built");
            }
        }
    }
    assert!(std::fs::read(link.join("hostname")).is_ok(), "control");
}

fn whole(error: &dyn std::error::Error) -> String {
    error.to_string()
}

fn missing_grants_are_errors() {
    for path in ["/nowhere/at/all", "/proc/self", "/", "/tmp"] {
        let started = trial("/bin/true", &[]).reading(Path::new(path)).start();
        if let Ok(running) = started {
            let failed =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| running.finish().code));
            assert!(failed.is_err(), "{path}");
        }
    }
    assert_eq!(trial("/bin/true", &[]).run().code, 0, "and the launcher goes on");
}

fn only_scratch_is_written() {
    let outcome =
        shell("echo x > /tmp/x && mkdir /tmp/d && mv /tmp/x /tmp/d && cat /tmp/d/x").run();
    assert_eq!(outcome.stdout, "x\n", "{outcome:?}");
    for path in
        ["/x", "/usr/x", "/bin/x", "/etc/x", "/etc/passwd", "/dev/x", "/proc/self/comm", "/lib/x"]
    {
        let outcome = shell(&format!("echo x > {path}")).run();
        assert_ne!(outcome.code, 0, "{path} was written");
    }
    assert!(!Path::new("/tmp/d").exists(), "the scratch folder is not the host's");
    let outcome = shell("head -c 2000000 /dev/zero > big; wc -c < big").run();
    assert_eq!(outcome.stdout.trim(), "1048576", "{outcome:?}");
    let outcome =
        shell("for i in $(seq 40); do head -c 1000000 /dev/zero > $i || exit 3; done").run();
    assert_eq!(outcome.code, 3, "{outcome:?}");
}

fn scratch_is_not_executed() {
    let script = "cp /bin/true ./t && ./t";
    let directory = tempfile::tempdir().unwrap();
    let control = shell_outside(&format!("cd {} && {script}", directory.path().display()));
    assert_eq!(control.code, 0, "control");
    assert_eq!(shell(script).run().code, 126);
}

fn no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("echo hello > /dev/tcp/127.0.0.1/{port}");
    assert_eq!(shell_outside(&script).code, 0, "control");
    let outcome = shell(&script).run();
    assert_ne!(outcome.code, 0, "{outcome:?}");
    println!("        ({})", outcome.stderr.lines().next().unwrap_or(""));
}

fn no_other_process() {
    #[expect(clippy::disallowed_methods, reason = "a process of the test's own, to be left alone")]
    let mut victim = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
    assert_eq!(shell_outside(&format!("kill -0 {}", victim.id())).code, 0, "control");
    for signal in ["0", "KILL"] {
        let outcome = shell(&format!("kill -{signal} {}", victim.id())).run();
        assert_ne!(outcome.code, 0, "{outcome:?}");
    }
    let outcome =
        shell("kill -KILL 1; kill -TERM 1; kill -STOP 1; kill -KILL -1; echo lives").run();
    assert!(outcome.code == 0 || outcome.code == -9, "{outcome:?}");
    assert!(victim.try_wait().unwrap().is_none(), "the victim lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let outcome = shell("echo $$ $PPID; ls /proc | grep '^[0-9]'; ls /proc").run();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"2 1"), "{outcome:?}");
    for hidden in ["cmdline", "sys", "kallsyms", "meminfo", "1"] {
        assert!(!lines.contains(&hidden), "{hidden} is shown: {lines:?}");
    }
    assert!(Path::new("/proc/sys").exists(), "control");
}

fn hostile_calls_are_refused() {
    let attempts = probing("calls", &[]).run();
    assert_eq!(attempts.code, 0, "{attempts:?}");
    let own = std::env::current_exe().unwrap();
    let control = outside(own.to_str().unwrap(), &[PROBE, "calls"]);
    let parse = |text: &str| -> Vec<(String, i32)> {
        text.lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, errno)| (name.to_owned(), errno.parse().unwrap()))
            .collect()
    };
    let (inside, outside) = (parse(&attempts.stdout), parse(&control.stdout));
    assert!(inside.len() > 25 && inside.len() == outside.len(), "{attempts:?} {control:?}");
    for ((name, errno), (_, free)) in inside.iter().zip(&outside) {
        let refused = match name.as_str() {
            "clone3" | "io_uring_setup" => libc::ENOSYS,
            _ => libc::EPERM,
        };
        assert_eq!(*errno, refused, "{name}");
        println!("        {name}: {errno} inside, {free} outside");
    }
    let works = |name: &str| outside.iter().any(|(it, errno)| it == name && *errno == 0);
    for name in ["socket", "ptrace", "unshare-user", "clone-user", "memfd_create", "personality"] {
        assert!(works(name), "control: {name}");
    }
    // The kernel's own refusal, with no filter in between, is the second wall: see
    // `unmapped_users_make_no_namespace` among the cell's tests.
    for script in ["unshare -Ur true", "mount -t tmpfs x /tmp", "strace true"] {
        let outcome = shell(script).run();
        assert_ne!(outcome.code, 0, "{script}: {outcome:?}");
    }
}

fn no_capability() {
    let status = trial("/bin/cat", &["/proc/self/status"]).run().stdout;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("absent")
    };
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"), "{status}");
    assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(trial("/bin/cat", &["/proc/self/uid_map"]).run().stdout, "", "nobody is mapped");
    let limits = trial("/bin/bash", &["-c", "ulimit -c; ulimit -u"]).run();
    assert_eq!(limits.stdout, "0\n64\n");
}

fn descriptors_are_standard() {
    let outcome = shell("cd /proc/self/fd; echo *").run();
    // The shell opens the folder to expand the star.
    assert_eq!(outcome.stdout.trim(), "0 1 2 3", "{outcome:?}");
    let outcome = probing("descriptors", &[]).run();
    assert_eq!(outcome.stdout, "0 1 2 ", "{outcome:?}");
}

// --- limits

fn fork_bomb_ends() {
    let running = shell("bomb() { bomb | bomb & }; bomb; sleep 100").start().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.kill();
    // It ends only if every process that holds the pipes has ended.
    let outcome = running.finish();
    assert_eq!(outcome.code, i32::MIN, "the first process had no time to speak");
    let outcome = shell("ulimit -u; for i in $(seq 200); do sleep 5 & done; wait; echo no").run();
    assert!(outcome.stderr.contains("fork"), "{}", outcome.stderr);
}

fn orphans_end_with_it() {
    let outcome =
        shell("(setsid sleep 100 &) ; (for i in 1 2 3; do (true &) ; done); echo x").run();
    assert_eq!(outcome.stdout, "x\n");
    assert_eq!(outcome.code, 0);
    // More processes than there may be at a time: those that ended were reaped.
    let outcome =
        shell("for i in $(seq 300); do (setsid true &) ; sleep 0.002; done; echo x").run();
    assert_eq!(outcome.stdout, "x\n", "{outcome:?}");
}

fn memory_is_limited() {
    let allocate = |bytes: &str| {
        let mut trial = probing("allocate", &[bytes]);
        trial.command.limits.data_bytes = Some(64 << 20);
        trial.run()
    };
    assert_eq!(allocate("33554432").stdout, "allocated", "control");
    assert_ne!(allocate("134217728").stdout, "allocated");
}

fn ends_when_nobody_listens() {
    let Running { pid, line, mut stdout, .. } = shell("echo up; sleep 100").start().unwrap();
    let mut word = [0; 3];
    stdout.read_exact(&mut word).unwrap();
    drop(line);
    assert_eq!(wait(pid), 0);
    assert_eq!(stdout.read(&mut word).unwrap(), 0, "everything in there has ended");
}
