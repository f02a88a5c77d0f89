//! The memory of a program and all that it started.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

/// Processes that are looked at: more than there can be.
const PROCESSES_MAX: usize = 256;

/// Whether everything below the first process of a program's jail takes more memory than it may.
pub(super) fn exceeds(first: &OwnedFd, mem_bytes: u64) -> bool {
    let Some(first) = pid(first) else { return false };
    let processes = below(first);
    // Cheap, and never too little: shared pages are counted once for each that shares them.
    let upper: u64 = processes.iter().map(|pid| resident_bytes(*pid)).sum();
    // Exact, and slow.
    upper > mem_bytes && processes.iter().map(|pid| share_bytes(*pid)).sum::<u64>() > mem_bytes
}

fn pid(pidfd: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

/// All descendants. The first process adopts what its own children leave behind, so that nothing
/// of the program's is anywhere else.
fn below(first: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut next = vec![first];
    while let Some(pid) = next.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let Ok(children) = fs::read_to_string(thread.path().join("children")) else { continue };
            let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
            for child in children {
                if found.len() >= PROCESSES_MAX {
                    return found;
                }
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

/// Memory of its own and shared memory, in bytes; not the files that it maps.
fn resident_bytes(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    1024 * ["RssAnon:", "RssShmem:"].map(|name| kib(&text, name)).iter().sum::<u64>()
}

/// The same, where each shared page counts as much less as more share it. A process that made itself
/// unreadable counts whole.
fn share_bytes(pid: i32) -> u64 {
    match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => {
            1024 * ["Pss_Anon:", "Pss_Shmem:"].map(|name| kib(&text, name)).iter().sum::<u64>()
        }
        Err(_) => resident_bytes(pid),
    }
}

fn kib(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
