//! What a confined thread costs: medians of starting it, of entering the jail with and without the
//! right to namespaces, and of what was rejected as slower.
//!
//! `cargo run --release -p pyisolate-jail --example thread_cost`. With `PYISOLATE_PREFIX`, the
//! directory that `bin` and `lib/python3.13` are in, the files are that Python's, else this program's.

#![expect(unsafe_code, reason = "confines threads")]
#![expect(clippy::print_stdout, reason = "prints measurements")]

use std::path::Path;
use std::time::{Duration, Instant};

use pyisolate_jail::{Environment, RootPlan, ThreadJail, capabilities, launcher_is_root};
use rustix::thread::UnshareFlags;

const ROUNDS: usize = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let empty = std::env::temp_dir().join(format!("thread-cost-{}", std::process::id()));
    std::fs::create_dir_all(&empty)?;
    let plan = plan(&empty)?;
    println!("medians of {ROUNDS}; {} binds in the plan", plan.binds().len());
    line("a thread that does nothing, started and joined", each(|| ()).1);
    let made = [
        ("a network namespace", UnshareFlags::NEWNET),
        ("an ipc namespace", UnshareFlags::NEWIPC),
        ("a mount namespace", UnshareFlags::NEWNS),
    ];
    for (what, flags) in made.into_iter().filter(|_| launcher_is_root()) {
        // SAFETY: descriptors stay shared.
        let make = || unsafe { rustix::thread::unshare_unsafe(flags) }.expect("unshare");
        line(&format!("{what}, made for each thread"), each(make).0);
    }
    measure(&plan, "with the rights of this host")?;
    capabilities::drop_sets()?;
    measure(&plan, "without any right")?;
    std::fs::remove_dir_all(empty)?;
    Ok(())
}

fn measure(plan: &RootPlan, rights: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let jail = ThreadJail::prepare(plan, &[])?;
    line(&format!("ThreadJail::prepare, once, {rights}"), start.elapsed());
    let (enter, whole) = each(|| {
        // SAFETY: the thread is new and uses no descriptor.
        unsafe { jail.enter(&[]) }.expect("enter");
    });
    line(&format!("ThreadJail::enter, {rights}"), enter);
    line(&format!("started, confined and joined, {rights}"), whole);
    Ok(())
}

/// The medians of `step` on a thread of its own, and of the thread's whole life.
fn each(step: impl Fn() + Sync) -> (Duration, Duration) {
    let (mut steps, mut lives) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let timed = || {
            let start = Instant::now();
            step();
            start.elapsed()
        };
        let spent = std::thread::scope(|scope| scope.spawn(timed).join()).expect("thread");
        steps.push(spent);
        lives.push(start.elapsed());
    }
    (median(steps), median(lives))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn line(name: &str, time: Duration) {
    println!("{name:<64}{:>9.1} us", time.as_secs_f64() * 1e6);
}

fn plan(empty: &Path) -> Result<RootPlan, Box<dyn std::error::Error>> {
    let this = std::env::current_exe()?;
    let mut environment = Environment {
        executable: this.clone(),
        stdlib: empty.to_path_buf(),
        platstdlib: empty.to_path_buf(),
        platlibdir: "lib".to_owned(),
        version: (3, 13),
        packages: Vec::new(),
        runtime: this,
    };
    if let Some(prefix) = std::env::var_os("PYISOLATE_PREFIX") {
        environment.executable = Path::new(&prefix).join("bin/python3.13");
        environment.stdlib = Path::new(&prefix).join("lib/python3.13");
        environment.platstdlib.clone_from(&environment.stdlib);
    }
    Ok(RootPlan::new(&environment)?)
}
