//! What a channel costs between two processes, on this machine, now.
//!
//! ```text
//! cargo run --release -p pyisolate-channel --example ring_bench
//! ```
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pyisolate_channel::{
    ChannelError, DEFAULT_RING_BYTES, GuestEnd, HostEnd, Received, Sent, SharedBuffer, fill_buffer,
    pair,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the guest finds the memory file.
const GUEST_MEMORY: &str = "PYISOLATE_CHANNEL_BENCH_MEMORY";

const RECORD: [u8; 32] = [7; 32];
const ROUND_TRIPS: usize = 200_000;
const SLEEPING_ROUND_TRIPS: usize = 10_000;
const COLD_ROUND_TRIPS: usize = 500;
const ONE_WAY: u32 = 5_000_000;
const BUFFER_BYTES: usize = 64 << 20;
const BUFFERS: u32 = 5;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    match std::env::var(GUEST_MEMORY) {
        Ok(path) => guest(&path),
        Err(_) => host(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the guest of this benchmark is this program")]
fn host() -> Outcome {
    let (mut host, fds) = pair(DEFAULT_RING_BYTES)?;
    let memory = format!("/proc/{}/fd/{}", std::process::id(), fds.memory.as_raw_fd());
    let mut child = Command::new(std::env::current_exe()?)
        .env(GUEST_MEMORY, memory)
        .stdin(fds.socket)
        .stdout(Stdio::null())
        .spawn()?;
    let mut record = Vec::new();
    receive(&mut host, &mut record)?;

    report_round_trips(
        "round trip, 32 bytes, both sides awake",
        &mut host,
        ROUND_TRIPS,
        Duration::ZERO,
    )?;
    report_round_trips(
        "round trip, 32 bytes, guest asleep",
        &mut host,
        COLD_ROUND_TRIPS,
        Duration::from_millis(1),
    )?;

    report_without_spinning()?;

    let began = Instant::now();
    send(&mut host, b"take")?;
    for _ in 0..ONE_WAY {
        send(&mut host, &RECORD)?;
    }
    receive(&mut host, &mut record)?;
    report_rate("host to guest, 32 bytes", began);

    let began = Instant::now();
    send(&mut host, b"give")?;
    for _ in 0..ONE_WAY {
        receive(&mut host, &mut record)?;
    }
    report_rate("guest to host, 32 bytes", began);

    let mut times = Vec::new();
    for tag in 0..BUFFERS {
        let began = Instant::now();
        let buffer = SharedBuffer::create(BUFFER_BYTES)?;
        send(&mut host, b"fill")?;
        let _: Sent = host.control.send_descriptor(tag, &buffer)?;
        receive(&mut host, &mut record)?;
        let mapping = buffer.seal_and_map()?;
        let sum: u64 = mapping.iter().step_by(64).map(|byte| u64::from(*byte)).sum();
        black_box(sum);
        times.push(began.elapsed());
    }
    let (median, _) = median_and_p99(times);
    let rate = BUFFER_BYTES as f64 / median.as_secs_f64() / 1e9;
    println!(
        "buffer of 64 MiB, guest to host: {:.1} ms, filled, sealed and read: {rate:.2} GB/s",
        median.as_secs_f64() * 1e3
    );

    send(&mut host, b"exit")?;
    child.wait()?;
    host.control.mark_dead()?;
    Ok(())
}

fn guest(path: &str) -> Outcome {
    let memory: OwnedFd = OpenOptions::new().read(true).write(true).open(path)?.into();
    let mut guest = GuestEnd::attach(memory, std::io::stdin().as_fd().try_clone_to_owned()?)?;
    let source = vec![1; BUFFER_BYTES];
    let mut tag = 0;
    let mut record = Vec::new();
    let _: Sent = guest.writer.send(&[b"ready"], true, None)?;
    loop {
        let _: Received = guest.reader.recv(&mut record, None)?;
        match record.as_slice() {
            b"take" => {
                for _ in 0..ONE_WAY {
                    let _: Received = guest.reader.recv(&mut record, None)?;
                }
            }
            b"give" => {
                for _ in 0..ONE_WAY {
                    let _: Sent = guest.writer.send(&[&RECORD], false, None)?;
                }
                continue;
            }
            b"fill" => {
                fill_buffer(guest.descriptors.recv(tag)?, &[&source])?;
                tag += 1;
            }
            b"exit" => return Ok(()),
            _ => {}
        }
        let _: Sent = guest.writer.send(&[&record], true, None)?;
    }
}

fn send(host: &mut HostEnd, bytes: &[u8]) -> Result<(), ChannelError> {
    host.writer.send(&[bytes], None).map(|_: Sent| ())
}

fn receive(host: &mut HostEnd, record: &mut Vec<u8>) -> Result<(), ChannelError> {
    host.reader.recv(record, None).map(|_: Received| ())
}

fn report_round_trips(
    what: &str,
    host: &mut HostEnd,
    count: usize,
    pause: Duration,
) -> Result<(), ChannelError> {
    let mut record = Vec::new();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        thread::sleep(pause);
        let began = Instant::now();
        send(host, &RECORD)?;
        receive(host, &mut record)?;
        times.push(began.elapsed());
    }
    let (median, p99) = median_and_p99(times);
    println!(
        "{what}: median {:.2} µs, p99 {:.2} µs",
        median.as_secs_f64() * 1e6,
        p99.as_secs_f64() * 1e6
    );
    Ok(())
}

/// What a round trip costs when both sides go to sleep at once, each on a core of its own: the price
/// that spinning is measured against.
fn report_without_spinning() -> Outcome {
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let [first, second, ..] = cpus[..] else {
        println!("round trip without spinning: not measured, there is one CPU only");
        return Ok(());
    };
    thread::scope(|scope| {
        scope
            .spawn(move || -> Result<(), ChannelError> {
                // An end made on a single CPU does not spin.
                pin(first);
                let (mut host, fds) = pair(DEFAULT_RING_BYTES)?;
                let mut guest = GuestEnd::attach(fds.memory, fds.socket)?;
                let echo = thread::spawn(move || -> Result<(), ChannelError> {
                    pin(second);
                    let mut record = Vec::new();
                    for _ in 0..SLEEPING_ROUND_TRIPS {
                        let _: Received = guest.reader.recv(&mut record, None)?;
                        let _: Sent = guest.writer.send(&[&record], true, None)?;
                    }
                    Ok(())
                });
                let what = "round trip, 32 bytes, on two cores without spinning";
                report_round_trips(what, &mut host, SLEEPING_ROUND_TRIPS, Duration::ZERO)?;
                echo.join().unwrap_or(Ok(()))
            })
            .join()
            .map_err(|_| "the thread that does not spin has panicked")
    })??;
    Ok(())
}

fn pin(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    // Without it the figure is another one, not a wrong one.
    let _ = sched_setaffinity(None, &one);
}

fn report_rate(what: &str, began: Instant) {
    println!(
        "{what}: {:.2} million records/s",
        f64::from(ONE_WAY) / began.elapsed().as_secs_f64() / 1e6
    );
}

fn median_and_p99(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
