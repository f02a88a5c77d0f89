//! Control groups against the real kernel: each limit holds, and the same is done without it.

#![expect(unsafe_code, reason = "the tests do what a hostile guest does: raw system calls")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::mem_forget,
    reason = "a test with its own harness is not recognised as one"
)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::Feature::Cgroup;
use common::{in_child, wait};
use pyisolate_jail::{Cgroups, Controller, Group, GroupLimits};

const MIB: u64 = 1 << 20;

fn main() {
    common::run(&[
        ("cgroup: memory ends at the limit", &[Cgroup], memory_ends),
        ("cgroup: threads and processes end at the limit", &[Cgroup], processes_end),
        ("cgroup: CPU time is a share", &[Cgroup], cpu_is_a_share),
        ("cgroup: limits are read back", &[Cgroup], limits_are_read_back),
        ("cgroup: nothing is left behind", &[Cgroup], nothing_is_left),
        ("cgroup: what a killed host left is swept", &[Cgroup], leftovers_are_swept),
    ]);
}

fn limits() -> GroupLimits {
    GroupLimits { memory_bytes: 64 * MIB, threads: 8, cpu_millicores: None }
}

/// How `body` ends in a process that is in the group before it begins, or in none.
fn in_group(group: Option<&Group>, body: fn() -> i32) -> i32 {
    let (mut theirs, mut ours) = std::io::pipe().unwrap();
    // SAFETY: the harness has one thread, so the copy holds no lock that nobody will release.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            drop(ours);
            let _ = std::io::Read::read(&mut theirs, &mut [0]);
            // SAFETY: ends this copy without running what belongs to the original.
            unsafe { libc::_exit(body()) }
        }
        pid => {
            if let Some(group) = group {
                group.add(pid).unwrap();
            }
            std::io::Write::write_all(&mut ours, b"x").unwrap();
            wait(pid)
        }
    }
}

fn touch_128_mib() -> i32 {
    let mut memory = vec![0_u8; usize::try_from(128 * MIB).unwrap()];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    i32::from(std::hint::black_box(&memory)[0]) - 1
}

fn memory_ends() {
    let groups = Cgroups::prepare().unwrap();
    let group = groups.group(1).unwrap();
    if !group.has(Controller::Memory) {
        println!("        no memory controller here");
        return;
    }
    group.limit(&limits()).unwrap();
    assert!(!group.ran_out_of_memory());
    assert_eq!(in_group(Some(&group), touch_128_mib), -libc::SIGKILL);
    assert!(group.ran_out_of_memory());
    let peak = group.memory_peak_bytes().unwrap();
    assert!((32 * MIB..=64 * MIB).contains(&peak), "{peak}");
    assert_eq!(in_group(None, touch_128_mib), 0, "control");
}

/// How many children it can have, up to 20.
fn children() -> i32 {
    let mut made = Vec::new();
    while made.len() < 20 {
        // SAFETY: one thread; the copy waits for the signal that ends it.
        match unsafe { libc::fork() } {
            -1 => break,
            // SAFETY: pause takes nothing, and _exit ends the copy.
            0 => unsafe {
                libc::pause();
                libc::_exit(0)
            },
            pid => made.push(pid),
        }
    }
    for pid in &made {
        // SAFETY: kill takes numbers; this one is a child that was not waited for.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
        wait(*pid);
    }
    i32::try_from(made.len()).unwrap()
}

fn processes_end() {
    let groups = Cgroups::prepare().unwrap();
    let group = groups.group(1).unwrap();
    if !group.has(Controller::Pids) {
        println!("        no pids controller here");
        return;
    }
    group.limit(&limits()).unwrap();
    assert_eq!(in_group(Some(&group), children), 7, "the first process counts, too");
    assert_eq!(in_group(None, children), 20, "control");
    assert_eq!(group.members().unwrap(), []);
}

/// Spins for a while; the CPU time that it got, in hundredths of a second.
fn spin() -> i32 {
    let end = Instant::now() + Duration::from_millis(1000);
    while Instant::now() < end {}
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    i32::try_from(used.tv_sec * 100 + used.tv_nsec / 10_000_000).unwrap()
}

fn cpu_is_a_share() {
    let groups = Cgroups::prepare().unwrap();
    let group = groups.group(1).unwrap();
    if !group.has(Controller::Cpu) {
        println!("        no cpu controller here");
        return;
    }
    group.limit(&GroupLimits { cpu_millicores: Some(100), ..limits() }).unwrap();
    assert_eq!(group.throttled(), Duration::ZERO);
    let held = in_group(Some(&group), spin);
    let free = in_group(None, spin);
    println!("        {held} of {free} hundredths of a second");
    // A tenth of a second, a period more, and what it used before it was moved.
    assert!(held < 40, "{held}");
    assert!(free > held, "control");
    assert!(group.throttled() > Duration::from_millis(100), "{:?}", group.throttled());
}

fn limits_are_read_back() {
    let groups = Cgroups::prepare().unwrap();
    let group = groups.group(1).unwrap();
    group.limit(&limits()).unwrap();
    let said = group.describe().unwrap();
    println!("        {said}");
    if group.has(Controller::Memory) {
        assert!(said.contains(&format!("memory {}", 64 * MIB)), "{said}");
    }
    if group.has(Controller::Pids) {
        assert!(said.contains("pids 8"), "{said}");
    }
    let error = group.add(i32::MAX).unwrap_err();
    assert!(error.to_string().contains("cgroup.procs"), "{error}");
}

fn nothing_is_left() {
    let groups = Cgroups::prepare().unwrap();
    let group = groups.group(7).unwrap();
    let folders = group.paths();
    assert!(!folders.is_empty() && folders.iter().all(|it| it.is_dir()));
    assert!(groups.group(7).is_err(), "a number is one cell's");
    assert!(folders.iter().all(|it| it.is_dir()), "what was refused removed another's group");
    drop(groups);
    let above: Vec<&Path> = folders.iter().map(|it| it.parent().unwrap()).collect();
    assert!(above.iter().all(|it| !it.exists()), "{above:?}");
}

fn leftovers_are_swept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let code = in_child(|| {
        let groups = Cgroups::prepare().unwrap();
        let group = groups.group(1).unwrap();
        let paths: Vec<_> = group.paths().into_iter().map(|it| it.to_str().unwrap()).collect();
        fs::write(file.path(), paths.join("\n")).unwrap();
        std::mem::forget(groups); // as if killed
        0
    });
    assert_eq!(code, 0);
    let left = fs::read_to_string(file.path()).unwrap();
    assert!(left.lines().all(|path| Path::new(path).is_dir()), "control");
    drop(Cgroups::prepare().unwrap());
    assert!(left.lines().all(|path| !Path::new(path).exists()), "{left}");
}
