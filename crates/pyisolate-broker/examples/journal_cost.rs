//! What the journal costs the thread that records, on and off.
//!
//! `cargo run --release -p pyisolate-broker --example journal_cost [FOLDER]`. The folder is where
//! the journal is written, by default the one for temporary files.

#![expect(clippy::print_stdout, reason = "prints measurements")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyisolate_broker::journal::{
    Direction, Journal, JournalKey, JournalOptions, Kind, Outcome, Payloads, Record,
};
use pyisolate_policy::{Access, Act, CleanPath};

const ROUNDS: u32 = 200_000;
const BATCHES: u32 = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("journal-cost-{}", std::process::id()));
    let act = Act::File { access: Access::Read, path: CleanPath::new("/data/2026/penguins.csv")? };
    let payload = [b'x'; 100];
    println!("ns a record, as the caller sees it: median of {BATCHES} batches, and all in all");
    println!("(a request with its act and a payload of 100 bytes; {ROUNDS} records)\n");
    print("off", &measure(None, &act, &payload), None);
    let key = JournalKey::new(&[7; 32])?;
    for (name, payloads, key) in [
        ("on, no payloads", Payloads::None, None),
        ("on, hashes", Payloads::Hash, None),
        ("on, whole payloads", Payloads::Full, None),
        ("on, hashes, with a key", Payloads::Hash, Some(key)),
    ] {
        let options = JournalOptions { payloads, key, ..JournalOptions::default() };
        let journal = Journal::create(&path, options)?;
        let began = Instant::now();
        let batches = measure(Some(&journal), &act, &payload);
        journal.close()?;
        let whole = began.elapsed();
        let bytes = std::fs::metadata(&path)?.len();
        std::fs::remove_file(&path)?;
        print(name, &batches, Some((whole, bytes)));
    }
    println!("\none record every 20 µs, which the writer keeps up with:");
    for (name, payloads) in [("on, no payloads", Payloads::None), ("on, hashes", Payloads::Hash)] {
        let options = JournalOptions { payloads, ..JournalOptions::default() };
        let journal = Journal::create(&path, options)?;
        let mut spent: Vec<u128> = (0..20_000)
            .map(|number| {
                let until = Instant::now() + Duration::from_micros(20);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                let began = Instant::now();
                one(Some(&journal), &act, &payload, number);
                began.elapsed().as_nanos()
            })
            .collect();
        journal.close()?;
        std::fs::remove_file(&path)?;
        spent.sort_unstable();
        let at = |share: f64| spent[(spent.len() as f64 * share) as usize];
        println!("{name:<24} median {:>5}   99% {:>6}", at(0.5), at(0.99));
    }
    Ok(())
}

/// One crossing of a supervisor that may have a journal.
#[inline(never)]
fn one(journal: Option<&Arc<Journal>>, act: &Act, payload: &[u8], number: u32) {
    if let Some(journal) = journal {
        let record = Record {
            operation: Some(number),
            capability: Some("filesystem"),
            action: Some("read"),
            act: Some(act),
            outcome: Some(Outcome::Granted),
            ..Record::new("tenant-7", Direction::ToHost, Kind::Request).with_payload(payload)
        };
        // What a supervisor does once it is broken is not measured.
        let _ = journal.record(&record);
    }
}

fn measure(journal: Option<&Arc<Journal>>, act: &Act, payload: &[u8]) -> Vec<f64> {
    let rounds = ROUNDS / BATCHES;
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let began = Instant::now();
            for number in 0..rounds {
                one(black_box(journal), act, payload, number);
            }
            began.elapsed().as_nanos() as f64 / f64::from(rounds)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches
}

fn print(name: &str, batches: &[f64], whole: Option<(Duration, u64)>) {
    let median = batches[batches.len() / 2];
    let whole = whole.map_or_else(String::new, |(time, bytes)| {
        let each = time.as_nanos() as f64 / f64::from(ROUNDS);
        format!("   with the writer and fsync {each:>6.0}   {} bytes", bytes / u64::from(ROUNDS))
    });
    println!("{name:<24} {median:>7.1}{whole}");
}
