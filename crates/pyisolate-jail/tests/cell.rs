//! The whole jail: what a real cell in a real outer jail sees, and what it says of itself.

#![expect(unsafe_code, reason = "the tests do what a hostile guest does: raw system calls")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with its own harness is not recognised as one"
)]

mod common;

use std::io;
use std::os::fd::AsRawFd;

use common::Feature::{Seccomp, Userns};
use common::{call, errno, in_cell, in_child, wait};
use pyisolate_jail::{Cloned, LayerName, Rlimits, Role, Status, Support, clone_cell};

fn main() {
    common::run(&[
        ("cell: the root holds what is expected", &[Userns, Seccomp], root_holds_what_is_expected),
        ("cell: the root cannot be written", &[Userns, Seccomp], root_cannot_be_written),
        ("cell: every layer is reported", &[Userns, Seccomp], every_layer_is_reported),
        ("cell: is nobody, alone and without a network", &[Userns, Seccomp], cell_is_alone),
        ("cell: a namespace cannot be made in it", &[Userns], unmapped_users_make_no_namespace),
        ("template: clones cells once it is mapped", &[Userns, Seccomp], templates_clone_cells),
    ]);
}

fn list(directory: &str) -> String {
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names.join(" ")
        }
        Err(error) => error.to_string(),
    }
}

fn root_holds_what_is_expected() {
    let (_, seen) = in_cell(Role::Cell, |_| {
        [
            "/",
            "/dev",
            "/packages",
            "/python",
            "/python/lib/python3.13",
            "/python/lib/python3.13/site-packages",
        ]
        .map(list)
        .join("\n")
    });
    let lines: Vec<_> = seen.lines().collect();
    let loader = if cfg!(target_arch = "x86_64") {
        "dev lib lib64 packages pyisolate python"
    } else {
        "dev lib packages pyisolate python"
    };
    assert_eq!(lines[0], loader);
    assert_eq!(lines[1..5], ["null urandom", "0", "bin lib", "site-packages"]);
    assert_eq!(lines.get(5), None, "packages that nobody listed are covered: {lines:?}");
}

fn root_cannot_be_written() {
    let (_, seen) = in_cell(Role::Cell, |_| {
        ["/x", "/lib/x", "/packages/0/x", "/python/bin/python3", "/dev/x"]
            .map(|path| {
                match std::fs::File::options().write(true).create(true).truncate(false).open(path) {
                    Ok(_) => format!("{path} written"),
                    Err(error) => error.raw_os_error().unwrap().to_string(),
                }
            })
            .join(" ")
    });
    for code in seen.split(' ') {
        assert!(
            [libc::EROFS, libc::EACCES].map(|code| code.to_string()).contains(&code.to_owned()),
            "{seen}"
        );
    }
    assert_eq!(
        in_cell(Role::Cell, |_| format!("{:?}", std::fs::write("/dev/null", "x").is_ok())).1,
        "true"
    );
}

fn every_layer_is_reported() {
    for role in [Role::Cell, Role::Template] {
        let (report, _) = in_cell(role, |_| String::new());
        println!(
            "{}",
            report
                .to_string()
                .lines()
                .map(|line| format!("        {line}"))
                .collect::<Vec<_>>()
                .join("\n")
        );
        for name in LayerName::ALL {
            match report.get(*name) {
                // Filled in by whoever knows: the zygote's program and the supervisor.
                None => assert!(
                    matches!(name, LayerName::Environment | LayerName::Cgroup | LayerName::Clock),
                    "{name}"
                ),
                Some(layer) if *name == LayerName::Landlock => {
                    assert_eq!(
                        layer.status == Status::Missing,
                        Support::probe() == Support::Missing
                    );
                }
                Some(layer) => assert_eq!(layer.status, Status::Enforced, "{layer:?}"),
            }
        }
    }
}

fn cell_is_alone() {
    let (_, seen) = in_cell(Role::Cell, |_| {
        let kill = errno(call(libc::SYS_kill, [-1, 0]));
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{} {} {kill} {name}", rustix::process::getuid().as_raw(), std::process::id())
    });
    assert_eq!(seen, format!("65534 1 {} cell", libc::EPERM));
}

fn unmapped_users_make_no_namespace() {
    let code = in_child(|| match clone_cell().unwrap() {
        // No filter here: this is the kernel's own refusal.
        // SAFETY: unshare takes flags and no memory; ending by _exit is the harness's way.
        Cloned::Child => unsafe { libc::_exit(errno(libc::unshare(libc::CLONE_NEWUSER).into())) },
        Cloned::Parent { pid, .. } => wait(pid),
    });
    assert_eq!(code, libc::EPERM);
}

/// The launcher maps a template; the template clones a cell, which enters in turn.
fn templates_clone_cells() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let plan = common::plan_without_python(directory.path());
    let trees = pyisolate_jail::launcher_is_root().then(|| plan.open().unwrap());
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let outer = pyisolate_jail::spawn_outer(|child| {
        match trees {
            Some(trees) => trees.assemble().unwrap(),
            None => plan.build().unwrap(),
        }
        child.become_nobody().unwrap();
        let jail = pyisolate_jail::CellJail::prepare().unwrap();
        jail.enter_zygote().unwrap();
        match clone_cell().unwrap() {
            Cloned::Parent { pid, pidfd } => {
                send_descriptor(&theirs, &pidfd);
                wait(pid)
            }
            Cloned::Child => {
                pyisolate_jail::await_map().unwrap();
                theirs.read_exact(&mut [0]).unwrap();
                let keep = [theirs.as_raw_fd()];
                // SAFETY: from here on only `theirs` and the jail are used, and the process ends by
                // _exit.
                unsafe { jail.enter(Role::Template, &keep, &Rlimits::default()) }.unwrap();
                let code = match clone_cell().unwrap() {
                    Cloned::Parent { pid, .. } => wait(pid),
                    Cloned::Child => {
                        // SAFETY: as above.
                        let report =
                            unsafe { jail.enter(Role::Cell, &keep, &Rlimits::default()) }.unwrap();
                        theirs.write_all(report.encode().as_bytes()).unwrap();
                        0
                    }
                };
                // SAFETY: ends this copy without running what belongs to the original.
                unsafe { libc::_exit(code) }
            }
        }
    })
    .unwrap();
    drop(theirs);
    let template = receive_descriptor(&ours);
    pyisolate_jail::map_template(&outer, std::os::fd::AsFd::as_fd(&template)).unwrap();
    ours.write_all(&[1]).unwrap();
    let mut text = Vec::new();
    ours.read_to_end(&mut text).unwrap();
    assert_eq!(wait(outer.pid), 0);
    assert!(pyisolate_jail::Report::decode(&text).unwrap().get(LayerName::Seccomp).is_some());
}

fn send_descriptor(socket: &std::os::unix::net::UnixStream, descriptor: &std::os::fd::OwnedFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [std::os::fd::AsFd::as_fd(descriptor)];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    rustix::net::sendmsg(socket, &[io::IoSlice::new(b"x")], &mut control, SendFlags::empty())
        .unwrap();
}

fn receive_descriptor(socket: &std::os::unix::net::UnixStream) -> std::os::fd::OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut [0])],
        &mut control,
        RecvFlags::empty(),
    )
    .unwrap();
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .expect("a descriptor")
}
