//! What a cell costs: medians of clone, of each step of entering, and of what was rejected as
//! slower.
//!
//! `cargo run --release -p pyisolate-jail --example cell_cost`. Without Python: the memory to copy
//! is this program's.

#![expect(unsafe_code, reason = "clones and ends processes")]
#![expect(clippy::print_stdout, reason = "prints measurements")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use pyisolate_jail::seccomp::Filters;
use pyisolate_jail::{
    CellJail, Cloned, Domain, Environment, Rlimits, Role, RootPlan, capabilities, clone_cell,
    descriptors, launcher_is_root, process, spawn_outer,
};

const ROUNDS: usize = 500;

/// A step of the table: its name, and what it does in the child.
type Step<'a> = (&'static str, Box<dyn Fn() + 'a>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("cell-cost-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("empty"))?;
    let plan = plan(&directory.join("empty"))?;
    let trees = if launcher_is_root() { Some(plan.open()?) } else { None };
    let (read, write) = rustix::pipe::pipe()?;
    let outer = spawn_outer(|child| {
        let built = trees.map_or_else(|| plan.build(), pyisolate_jail::Trees::assemble);
        built.expect("root");
        child.become_nobody().expect("nobody");
        let text = measure(plan.binds().len());
        i32::from(File::from(write).write_all(text.as_bytes()).is_err())
    })?;
    let mut text = String::new();
    File::from(read).read_to_string(&mut text)?;
    print!("{text}");
    rustix::process::waitid(
        rustix::process::WaitId::PidFd(outer.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    )?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// The root to measure in: of the Python whose `bin`, `lib/python3.X` are below `PYISOLATE_PREFIX`,
/// or of this program.
fn plan(empty: &Path) -> Result<RootPlan, Box<dyn std::error::Error>> {
    let this = std::env::current_exe()?;
    let mut environment = Environment {
        executable: this.clone(),
        stdlib: empty.to_path_buf(),
        platstdlib: empty.to_path_buf(),
        platlibdir: "lib".to_owned(),
        version: (3, 13),
        packages: std::env::var_os("PYISOLATE_TEST_PACKAGES").map(Into::into).into_iter().collect(),
        runtime: this,
    };
    if let Some(prefix) = std::env::var_os("PYISOLATE_PREFIX") {
        environment.executable = Path::new(&prefix).join("bin/python3.13");
        environment.stdlib = Path::new(&prefix).join("lib/python3.13");
        environment.platstdlib.clone_from(&environment.stdlib);
    }
    let start = Instant::now();
    let plan = RootPlan::new(&environment)?;
    println!(
        "{:<44}{:>9.1} ms, {} binds",
        "RootPlan::new",
        start.elapsed().as_secs_f64() * 1e3,
        plan.binds().len()
    );
    Ok(plan)
}

fn measure(binds: usize) -> String {
    SLOT.with(|_| ()); // mapped before the filter forbids it
    let jail = CellJail::prepare().expect("prepare");
    let domain = Domain::prepare().expect("domain");
    let filters = Filters::compile().expect("filters");
    let null = descriptors::open_null().expect("null");
    let whole = Filters::whole_cell_program().expect("program");
    let compile = median((0..50).map(|_| timed(|| drop(Filters::compile()))).collect());
    let before = clone_median();
    // Only now, because it binds this process: a zygote's own confinement is inherited by each
    // clone.
    let unconfined_whole = child_median(&|| seccompiler_apply(&whole));
    jail.enter_zygote().expect("zygote");
    let keep = [];
    let limits = Rlimits { open_files: Some(64), threads: Some(64), ..Rlimits::fixed() };
    let steps: Vec<Step<'_>> = vec![
        ("rlimits", Box::new(|| limits.apply().expect("rlimits"))),
        (
            "capabilities",
            Box::new(|| {
                capabilities::drop_all().expect("drop");
                capabilities::verify_none().expect("verify");
                capabilities::verify_bounding_empty().expect("verify");
            }),
        ),
        (
            "process attributes, signals",
            Box::new(|| {
                process::unblock_signals().expect("signals");
                process::no_new_privileges().expect("nnp");
                process::not_dumpable().expect("dumpable");
                process::die_with_parent().expect("death");
            }),
        ),
        ("landlock", Box::new(|| domain.enter().expect("landlock"))),
        (
            "descriptors",
            Box::new(|| {
                // SAFETY: the child uses no descriptor from here on and ends by _exit.
                unsafe { descriptors::close_all_but(&[], null.as_fd()) }.expect("descriptors")
            }),
        ),
        (
            "seccomp: cell filter over the zygote's",
            Box::new(|| filters.install_cell().expect("cell")),
        ),
        ("seccomp: whole list over the zygote's", Box::new(|| seccompiler_apply(&whole))),
        (
            "enter, all of it",
            Box::new(|| {
                // SAFETY: the child uses no descriptor from here on and ends by _exit.
                unsafe { jail.enter(Role::Cell, &keep, &limits) }.expect("enter");
            }),
        ),
    ];
    let sizes = filters.programs().map(|program| program.len());
    let mut text = format!(
        "medians of {ROUNDS}, {binds} binds in the root; filters of {sizes:?} instructions\n"
    );
    let mut line = |name: &str, time: Duration| {
        text += &format!("{name:<44}{:>9.1} us\n", time.as_secs_f64() * 1e6);
    };
    line("Filters::compile, once", compile);
    line("clone_cell returns, zygote unconfined", before);
    line("clone_cell returns", clone_median());
    for (name, step) in &steps {
        line(name, child_median(step.as_ref()));
    }
    line("seccomp: whole list, nothing below", unconfined_whole);
    line("clone to the child's first instruction", round_trip(&|| {}));
    line(
        "clone + enter, seen by the zygote",
        round_trip(steps.last().map(|(_, step)| step.as_ref()).expect("last")),
    );
    text
}

fn seccompiler_apply(program: &seccompiler::BpfProgram) {
    seccompiler::apply_filter(program).expect("filter");
}

fn timed(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Clones a cell that ends at once; how long the call took in the caller.
fn clone_median() -> Duration {
    median(
        (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                let cloned = clone_cell().expect("clone");
                let took = start.elapsed();
                finish(cloned, || {});
                took
            })
            .collect(),
    )
}

/// How long `step` takes in a fresh cell, by the cell's own clock, sent through shared memory.
fn child_median(step: &dyn Fn()) -> Duration {
    shared(|slot| {
        let took = timed(step);
        // SAFETY: `slot` is the live shared mapping; only this child writes it while the parent
        // waits.
        unsafe { slot.write_volatile(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)) };
    })
}

/// From before the clone, by the zygote's clock, to after `step` in the cell (the clock is one for
/// all).
fn round_trip(step: &dyn Fn()) -> Duration {
    let origin = Instant::now();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = origin.elapsed();
        let done = shared_once(|slot| {
            step();
            let now = u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            // SAFETY: as in `child_median`.
            unsafe { slot.write_volatile(now) };
        });
        times.push(done.saturating_sub(start));
    }
    median(times)
}

fn shared(child: impl Fn(*mut u64)) -> Duration {
    median((0..ROUNDS).map(|_| shared_once(&child)).collect())
}

fn shared_once(child: impl FnOnce(*mut u64)) -> Duration {
    let slot = SLOT.with(|slot| *slot);
    finish(clone_cell().expect("clone"), || child(slot));
    // SAFETY: the child has ended; the mapping lives as long as this process.
    Duration::from_nanos(unsafe { slot.read_volatile() })
}

thread_local! {
    static SLOT: *mut u64 = {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; page-aligned, so
        // aligned for u64.
        let slot = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(slot, libc::MAP_FAILED, "mmap");
        slot.cast()
    };
}

fn finish(cloned: Cloned, child: impl FnOnce()) {
    match cloned {
        Cloned::Child => {
            child();
            // SAFETY: ends this copy without running what belongs to the original.
            unsafe { libc::_exit(0) }
        }
        Cloned::Parent { pid, pidfd } => {
            drop(pidfd);
            let mut status = 0;
            // SAFETY: `status` is a live int for the kernel to fill.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid, "waitpid");
            assert_eq!(status, 0, "a step failed in the child");
        }
    }
}
