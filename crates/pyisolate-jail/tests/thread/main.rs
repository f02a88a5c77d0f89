//! One thread of many behind the wall, with a thread that is not as control, and the host around
//! them as witness.

#![expect(unsafe_code, reason = "the tests do what a hostile guest does: raw system calls")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with its own harness is not recognised as one"
)]

mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod ending;
mod host;
mod scene;

use common::Feature::{Landlock, Python, Root, Seccomp};

fn main() {
    common::run(&[
        (
            "attacks: files, with a root of its own",
            &[Root, Seccomp, Landlock],
            attacks::files_with_a_root,
        ),
        (
            "attacks: files, by Landlock alone",
            &[Seccomp, Landlock],
            attacks::files_by_landlock_alone,
        ),
        ("attacks: what the thread may read", &[Seccomp, Landlock], attacks::what_may_be_read),
        ("attacks: libraries load by name", &[Seccomp, Landlock, Python], attacks::libraries_load),
        ("attacks: changes of the file tree", &[Seccomp], attacks::changes_of_the_tree),
        ("attacks: no socket of any family", &[Seccomp], attacks::sockets),
        ("attacks: sockets that it holds", &[Seccomp], attacks::held_sockets),
        ("attacks: processes and threads", &[Seccomp], attacks::processes),
        ("attacks: namespaces and mounts", &[Seccomp], attacks::namespaces),
        ("attacks: other processes' and the host's memory", &[Seccomp, Landlock], attacks::memory),
        ("attacks: the host's descriptors", &[Seccomp], attacks::descriptors),
        ("attacks: signals, masks and handlers", &[Seccomp], attacks::signals),
        ("attacks: what is the whole process's", &[Seccomp], attacks::whole_process),
        ("attacks: foreign system call numbers", &[Seccomp], attacks::foreign_numbers),
        ("ending: exit_group ends the thread alone", &[Seccomp], ending::exit_group),
        ("ending: abort ends the thread alone", &[Seccomp], ending::aborting),
        ("ending: a signal to the host's other threads", &[Seccomp], ending::signals_to_others),
        ("ending: changing the user holds up nobody", &[Seccomp], ending::changing_the_user),
        ("ending: the return from a fault's handler", &[Seccomp], ending::return_of_a_handler),
        ("ending: ten threads leave nothing", &[Seccomp], ending::ten_leave_nothing),
        ("host: other threads are untouched", &[Seccomp], host::others_are_untouched),
        ("host: other threads go on working", &[Seccomp], host::others_go_on),
        ("host: signals go to other threads", &[Seccomp], host::signals_go_elsewhere),
        ("report: privileged", &[Root, Seccomp, Landlock], host::report_of_a_privileged_host),
        ("report: unprivileged", &[Seccomp, Landlock], host::report_of_an_unprivileged_host),
        ("report: is what /proc shows", &[Seccomp], host::report_is_what_proc_shows),
        (
            "enter: refuses the first thread, and lists that it cannot keep",
            &[],
            host::misuse_is_refused,
        ),
    ]);
}
