//! Real programs through a real launcher.
//!
//! Skipped by name where there is no interpreter with pyisolate in it, unless `PYISOLATE_REQUIRE`
//! lists `python`. `PYISOLATE_RUNTIME` names another guest runtime than the one that is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, scope, sleep};
use std::time::Duration;

use super::*;
use crate::environment::Environment;
use crate::monitor::Monitor;
use crate::zygote::Zygote;

/// A launcher, and what asks it for programs.
struct Stage {
    programs: Programs,
    zygote: Arc<Zygote>,
    monitor: Arc<Monitor>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    fn set() -> Option<Self> {
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv");
        let runtime = std::env::var_os("PYISOLATE_RUNTIME").map(PathBuf::from);
        let found = Environment::of_venv(&venv, runtime.as_deref());
        let environment = match found.or_else(|_| Environment::discover()) {
            Ok(environment) => environment,
            Err(error) => {
                let required = std::env::var("PYISOLATE_REQUIRE").unwrap_or_default();
                assert!(!required.split(',').any(|name| name.trim() == "python"), "{error}");
                println!("skipped: no python: {error}");
                return None;
            }
        };
        let (monitor, thread) = Monitor::start().unwrap();
        let zygote = Zygote::launch(1, &environment, &monitor).unwrap();
        let programs = Programs::default();
        programs.use_launcher(zygote.programs.clone());
        Some(Self { programs, zygote, monitor, thread: Some(thread) })
    }

    fn run(&self, command: &Command) -> Result<Finished, RunError> {
        self.programs.run(command, &Cancel::default())
    }

    fn still_serves(&self) {
        let finished = self.run(&command("/bin/echo", &["still"])).unwrap();
        assert_eq!((finished.returncode, &*finished.stdout), (0, &b"still\n"[..]));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.zygote.shut_down();
        for _ in 0..5000 {
            if self.zygote.ended().is_some() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        self.monitor.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    Command {
        cell: CellName::new("one").unwrap(),
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: BTreeMap::new(),
        read: Vec::new(),
        stdin: Vec::new(),
        wall_time: Duration::from_secs(60),
        output_bytes: 1 << 20,
        mem_bytes: 512 << 20,
    }
}

fn shell(script: &str) -> Command {
    command("/bin/bash", &["-c", script])
}

#[test]
fn programs_run_to_their_end() {
    let Some(stage) = Stage::set() else { return };
    let finished = stage.run(&command("/bin/echo", &["a b", ""])).unwrap();
    let expected =
        Finished { returncode: 0, stdout: b"a b \n".to_vec(), stderr: Vec::new(), ended: None };
    assert_eq!(finished, expected);
    let finished = stage.run(&shell("echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!(finished.returncode, 7);
    assert_eq!((&*finished.stdout, &*finished.stderr), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(stage.run(&shell("kill -TERM $$")).unwrap().returncode, -15);
    // More than a pipe holds, both ways.
    let stdin: Vec<u8> = (0..900_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let cat = Command { stdin: stdin.clone(), output_bytes: 4 << 20, ..command("/bin/cat", &[]) };
    let finished = stage.run(&cat).unwrap();
    assert!(finished.stdout == stdin && finished.ended.is_none());
    let env = BTreeMap::from([("A".to_owned(), "b c".to_owned())]);
    let finished = stage.run(&Command { env, ..command("/usr/bin/env", &[]) }).unwrap();
    let seen = "PATH=/usr/local/bin:/usr/bin:/bin\nLC_ALL=C.UTF-8\nHOME=/tmp\nA=b c\n";
    assert_eq!(String::from_utf8_lossy(&finished.stdout), seen);
    if let Some(git) =
        ["/usr/local/bin/git", "/usr/bin/git"].into_iter().find(|git| Path::new(git).exists())
    {
        let finished = stage.run(&command(git, &["--version"])).unwrap();
        assert!(finished.stdout.starts_with(b"git version"), "{finished:?}");
    }
    let report = stage.programs.confinement().unwrap();
    assert!(report.layers.len() >= 10, "{report}");
}

#[test]
fn what_goes_too_far_is_ended() {
    let Some(stage) = Stage::set() else { return };
    let short = Duration::from_millis(200);
    let finished =
        stage.run(&Command { wall_time: short, ..shell("echo so far; sleep 100") }).unwrap();
    assert_eq!(finished.ended, Some(EndedBy::WallTime));
    assert_eq!(finished.stdout, b"so far\n");
    stage.still_serves();
    // Also if it holds no pipe, and if its children are not its own any more.
    let quiet = shell("exec >/dev/null 2>&1; setsid sleep 100 & sleep 100");
    let finished = stage.run(&Command { wall_time: short, ..quiet }).unwrap();
    assert_eq!(finished.ended, Some(EndedBy::WallTime));
    let finished =
        stage.run(&Command { output_bytes: 100_000, ..command("/usr/bin/yes", &[]) }).unwrap();
    assert_eq!((finished.ended, finished.stdout.len()), (Some(EndedBy::Output), 100_000));
    let both = shell("yes >&2 & yes");
    let finished = stage.run(&Command { output_bytes: 1000, ..both }).unwrap();
    assert_eq!(finished.ended, Some(EndedBy::Output));
    assert_eq!(finished.stdout.len() + finished.stderr.len(), 1000);
    stage.still_serves();
    let exactly = Command { output_bytes: 6, ..command("/bin/echo", &["hello"]) };
    assert_eq!(stage.run(&exactly).unwrap().ended, None);
    let bomb = shell("bomb() { bomb | bomb & }; bomb; sleep 100");
    let finished = stage.run(&Command { wall_time: short, ..bomb }).unwrap();
    assert_eq!(finished.ended, Some(EndedBy::WallTime));
    stage.still_serves();
    // None of the four is too large by itself.
    let large = "large() { x=$(head -c 20000000 /dev/zero | tr '\\0' a); sleep 100; }; \
                 large & large & large & large & wait";
    let finished = stage.run(&Command { mem_bytes: 80_000_000, ..shell(large) }).unwrap();
    assert_eq!(finished.ended, Some(EndedBy::Memory), "{finished:?}");
    stage.still_serves();
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    let Some(stage) = Stage::set() else { return };
    // All of them hold its pipes.
    for script in [
        "setsid sleep 100 & echo done",
        "(setsid sleep 100 & exit) & wait; echo done",
        "sleep 100 & disown; trap '' TERM HUP; echo done",
        "(kill -STOP $BASHPID) & echo done",
    ] {
        let finished = stage.run(&shell(script)).unwrap();
        assert_eq!((finished.returncode, finished.ended), (0, None), "{script}: {finished:?}");
        assert_eq!(finished.stdout, b"done\n", "{script}");
    }
    // Who kills all that it can see does not reach the one that reaps.
    let suicide = stage.run(&shell("kill -9 -1; kill -STOP 1; kill -9 1; echo here")).unwrap();
    assert_eq!((&*suicide.stdout, suicide.returncode), (&b"here\n"[..], 0), "{suicide:?}");
    stage.still_serves();
}

#[test]
fn programs_inherit_nothing_of_the_launchers() {
    let Some(stage) = Stage::set() else { return };
    let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done; \
                  grep -E 'SigBlk|SigIgn|SigCgt|Uid|Groups|CapEff|NoNewPrivs' /proc/self/status; \
                  cat /proc/1/environ; ls /proc/1/fd; yes | head -n 1; echo ${PIPESTATUS[0]}";
    let finished = stage.run(&shell(script)).unwrap();
    let stdout = String::from_utf8(finished.stdout).unwrap();
    assert!(stdout.ends_with("y\n141\n"), "{stdout}");
    // But for the two signals that libc keeps to itself, which whoever runs the tests may ignore.
    let ignored = stdout.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !(3 << 31), 0, "{stdout}");
    assert!(!stdout.contains("PYTHON") && !stdout.contains("PATH="), "{stdout}");
    let numbers: Vec<&str> = stdout.lines().take_while(|line| !line.contains(':')).collect();
    // The fourth is the folder itself, which is being listed.
    assert_eq!(numbers, ["0", "1", "2", "3"], "{stdout}");
}

#[test]
fn what_does_not_run_says_why() {
    let Some(stage) = Stage::set() else { return };
    let nowhere = stage.run(&command("/usr/bin/there-is-no-such-program", &[]));
    assert!(matches!(nowhere, Err(RunError::Exec(error)) if error.raw_os_error() == Some(2)));
    stage.still_serves();
    let read = vec![PathBuf::from("/nowhere/at/all")];
    match stage.run(&Command { read, ..command("/bin/true", &[]) }) {
        Err(RunError::Jail(why)) => assert!(why.contains("/nowhere/at/all"), "{why}"),
        other => panic!("{other:?}"),
    }
    stage.still_serves();
    match stage.run(&command("/bin/echo", &[&"x".repeat(2 << 20)])) {
        Err(RunError::Jail(why)) => assert!(why.contains("too long"), "{why}"),
        other => panic!("{other:?}"),
    }
    match stage.run(&command("/bin/echo", &["a\0b"])) {
        Err(RunError::Jail(why)) => assert!(why.contains("NUL"), "{why}"),
        other => panic!("{other:?}"),
    }
    stage.still_serves();
    let nobody = Programs::default().run(&command("/bin/true", &[]), &Cancel::default());
    assert!(matches!(nobody, Err(RunError::Launcher(_))));
}

#[test]
fn standard_input_is_not_executed() {
    let Some(stage) = Stage::set() else { return };
    let stdin = b"#!/bin/bash\necho ran\n".to_vec();
    let execute = Command { stdin: stdin.clone(), ..shell("exec /proc/self/fd/0") };
    let finished = stage.run(&execute).unwrap();
    assert_eq!((finished.returncode, &*finished.stdout), (126, &b""[..]), "{finished:?}");
    let write = Command { stdin, ..shell("echo x > /proc/self/fd/0") };
    assert_ne!(stage.run(&write).unwrap().returncode, 0);
}

#[test]
fn programs_end_with_their_cell() {
    let Some(stage) = Stage::set() else { return };
    let cancel = Cancel::default();
    scope(|scope| {
        // More than may run at a time: some wait for a place.
        let runs: Vec<_> = (0..AT_ONCE + 3)
            .map(|_| scope.spawn(|| stage.programs.run(&shell("sleep 100"), &cancel).unwrap()))
            .collect();
        sleep(Duration::from_millis(300));
        cancel.cancel();
        for run in runs {
            assert_eq!(run.join().unwrap().ended, Some(EndedBy::Cancelled));
        }
    });
    assert!(lock(&stage.programs.places.taken).is_empty());
    // A cell that has ended gets none at all.
    let finished = stage.programs.run(&shell("sleep 100"), &cancel).unwrap();
    assert_eq!(finished.ended, Some(EndedBy::Cancelled));
    stage.still_serves();
}

#[test]
fn many_programs_take_turns() {
    let Some(stage) = Stage::set() else { return };
    scope(|scope| {
        for number in 0..2 * AT_ONCE + 1 {
            let stage = &stage;
            scope.spawn(move || {
                let number = number.to_string();
                let cell = CellName::new(&format!("cell-{number}")).unwrap();
                let echo = Command { cell, ..command("/bin/echo", &[&number]) };
                let finished = stage.run(&echo).unwrap();
                assert_eq!(finished.stdout, format!("{number}\n").as_bytes());
            });
        }
    });
}

#[test]
fn no_cell_takes_all_places() {
    let Some(stage) = Stage::set() else { return };
    let cancel = Cancel::default();
    scope(|scope| {
        let greedy: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| stage.programs.run(&shell("sleep 100"), &cancel).unwrap()))
            .collect();
        sleep(Duration::from_millis(200));
        assert_eq!(lock(&stage.programs.places.taken).values().sum::<usize>(), AT_ONCE_OF_A_CELL);
        let cell = CellName::new("other").unwrap();
        let finished = stage.run(&Command { cell, ..command("/bin/echo", &["x"]) }).unwrap();
        assert_eq!(finished.stdout, b"x\n");
        cancel.cancel();
        greedy.into_iter().for_each(|run| drop(run.join().unwrap()));
    });
}

#[test]
fn programs_end_with_their_launcher() {
    let Some(stage) = Stage::set() else { return };
    stage.still_serves();
    scope(|scope| {
        let run = scope.spawn(|| stage.run(&shell("sleep 100")));
        sleep(Duration::from_millis(200));
        stage.zygote.shut_down();
        assert!(matches!(run.join().unwrap(), Err(RunError::Launcher(_))));
    });
    let after = stage.run(&command("/bin/true", &[]));
    assert!(matches!(after, Err(RunError::Launcher(_))), "{after:?}");
}
