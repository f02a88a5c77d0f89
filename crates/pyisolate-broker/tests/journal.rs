//! The journal on real files: nothing is lost, and nothing can be changed without being found.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use pyisolate_broker::journal::{
    Direction, Entry, EntryPayload, Journal, JournalError, JournalKey, JournalOptions, Kind,
    LineHash, Outcome, Payloads, ReadError, Reader, Record, Summary, VerifyError, VerifyOptions,
    WriteError, verify,
};
use pyisolate_policy::{Access, Act, CleanPath};

fn key() -> Option<JournalKey> {
    Some(JournalKey::new(b"sixteen bytes ok").unwrap())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(bytes: &[u8], key: Option<JournalKey>) -> Result<Summary, VerifyError> {
    verify(bytes, &VerifyOptions { key, head: None })
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    Reader::new(bytes).collect::<Result<_, _>>().unwrap()
}

fn read_act(path: &str) -> Act {
    Act::File { access: Access::Read, path: CleanPath::new(path).unwrap() }
}

/// A journal of so many requests of two cells, closed.
fn journal(path: &Path, key: Option<JournalKey>, requests: u32) -> Vec<u8> {
    let options = JournalOptions { payloads: Payloads::Full, key, ..JournalOptions::default() };
    let journal = Journal::create(path, options).unwrap();
    for number in 0..requests {
        let act = read_act(&format!("/data/{number}"));
        let cell = if number % 3 == 0 { "fizz" } else { "buzz" };
        let mut record =
            Record::new(cell, Direction::ToHost, Kind::Request).with_payload(b"\x80\x05}\x94.");
        record.operation = Some(number);
        record.capability = Some("filesystem");
        record.action = Some("read");
        record.act = Some(&act);
        record.outcome = Some(Outcome::Granted);
        record.reason = Some("line\nbreak \u{2028} and \"quote\"");
        journal.record(&record).unwrap();
    }
    let newest = journal.close().unwrap();
    let bytes = fs::read(path).unwrap();
    assert_eq!(check(&bytes, None).ok().map_or(newest, |summary| summary.newest), newest);
    bytes
}

// --- what is written -----------------------------------------------------------------------------

#[test]
fn records_come_back_as_they_were_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let bytes = journal(&path, None, 7);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let summary = check(&bytes, None).unwrap();
    assert!(summary.is_closed && !summary.is_keyed);
    assert_eq!(summary.lines, 9);
    let entries = entries(&bytes);
    assert_eq!(entries[0].kind, Kind::Journal);
    assert_eq!(entries[0].payloads, Some(Payloads::Full));
    assert_eq!(entries[8].kind, Kind::Close);
    assert_eq!(entries[8].count, Some(8));
    assert!(entries.iter().map(|entry| entry.seq).eq(0..9));
    assert!(entries.is_sorted_by_key(|entry| entry.mono_ns));
    let request = &entries[4];
    assert_eq!(request.act, Some(read_act("/data/3")));
    assert_eq!((request.cell.as_str(), request.cell_seq), ("fizz", Some(1)));
    assert_eq!(request.outcome, Some(Outcome::Granted));
    assert_eq!(request.reason.as_deref(), Some("line\nbreak \u{2028} and \"quote\""));
    assert_eq!(request.bytes, 5);
    assert_eq!(request.payload, Some(EntryPayload::Base64("gAV9lC4=".to_owned())));
    assert!(request.wall.ends_with('Z') && request.wall.len() == 30, "{}", request.wall);
}

#[test]
fn a_journal_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let first = journal(&path, key(), 3);
    let second = journal(&path, key(), 2);
    assert!(second.starts_with(&first));
    let summary = check(&second, key()).unwrap();
    assert_eq!((summary.lines, summary.is_closed), (5 + 4, true));
    let kinds: Vec<Kind> = entries(&second).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds[4..6], [Kind::Close, Kind::Open]);
}

#[test]
fn a_cell_counts_from_its_spawn_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    for kind in [Kind::Spawn, Kind::Post, Kind::End, Kind::Spawn, Kind::End] {
        journal.record(&Record::new("a", Direction::Host, kind)).unwrap();
    }
    journal.close().unwrap();
    let numbers: Vec<_> =
        entries(&fs::read(&path).unwrap()).iter().filter_map(|entry| entry.cell_seq).collect();
    assert_eq!(numbers, [0, 1, 2, 0, 1]);
}

#[test]
fn secrets_are_not_written_in_any_form() {
    let folder = tempfile::tempdir().unwrap();
    for payloads in [Payloads::Full, Payloads::Hash] {
        let path = folder.path().join(format!("{payloads:?}"));
        let options = JournalOptions { payloads, ..JournalOptions::default() };
        let journal = Journal::create(&path, options).unwrap();
        let mut record = Record::new("a", Direction::ToGuest, Kind::Answer);
        record.sensitive = true;
        journal.record(&record.with_payload(b"hunter2")).unwrap();
        journal.close().unwrap();
        let bytes = fs::read(&path).unwrap();
        let answer = &entries(&bytes)[1];
        assert!(answer.sensitive && answer.payload.is_none());
        assert!(!String::from_utf8(bytes).unwrap().contains("hunter2"));
    }
}

#[test]
fn an_open_journal_is_written_within_moments_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    journal.record(&Record::new("a", Direction::ToGuest, Kind::Exec)).unwrap();
    // Nobody asks for a flush: the writer comes by itself.
    while entries(&fs::read(&path).unwrap()).len() < 2 {
        std::thread::yield_now();
    }
    journal.record(&Record::new("a", Direction::ToGuest, Kind::Exec)).unwrap();
    let newest = journal.flush().unwrap();
    assert_eq!(journal.newest(), newest);
    let summary = check(&fs::read(&path).unwrap(), None).unwrap();
    assert_eq!((summary.newest, summary.is_closed), (newest, false));
    drop(journal);
    assert!(check(&fs::read(&path).unwrap(), None).unwrap().is_closed);
}

#[test]
fn many_threads_make_one_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    // So small a queue that the threads have to wait for the writer.
    let options = JournalOptions { queue_bytes: 2000, ..JournalOptions::default() };
    let journal = Journal::create(&path, options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = Arc::clone(&journal);
            scope.spawn(move || {
                let cell = format!("cell-{thread}");
                for number in 0..500 {
                    let mut record = Record::new(&cell, Direction::ToHost, Kind::Post);
                    record.operation = Some(number);
                    journal.record(&record).unwrap();
                }
            });
        }
    });
    journal.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(check(&bytes, None).unwrap().is_closed);
    let entries = entries(&bytes);
    assert_eq!(entries.len(), 2 + 8 * 500);
    assert!(entries.is_sorted_by_key(|entry| entry.mono_ns));
    for thread in 0..8 {
        let cell = format!("cell-{thread}");
        let own = entries.iter().filter(|entry| entry.cell == cell);
        assert!(own.clone().map(|entry| entry.operation).eq((0..500).map(Some)));
        assert!(own.map(|entry| entry.cell_seq).eq((0..500).map(Some)));
    }
}

// --- what cannot be written ----------------------------------------------------------------------

#[test]
fn a_full_disk_is_told_to_everyone_who_records() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Journal::to_file(full(), JournalOptions::default()).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");

    // The head can be written and the rest cannot, as where a disk fills up later.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let options = JournalOptions { required: true, ..JournalOptions::default() };
    let journal = Journal::to_file(File::from(writer), options).unwrap();
    drop(reader);
    journal.record(&Record::new("a", Direction::ToGuest, Kind::Exec)).unwrap();
    assert!(matches!(journal.flush(), Err(WriteError::Io(_))));
    assert!(journal.is_broken() && journal.is_required());
    for _ in 0..3 {
        let told = journal.record(&Record::new("a", Direction::ToGuest, Kind::Exec)).unwrap_err();
        assert!(told.to_string().contains("Broken pipe"), "{told}");
    }
    assert!(journal.close().is_err());
}

#[test]
fn a_file_does_not_outgrow_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let options = JournalOptions { file_bytes_max: 10_000, ..JournalOptions::default() };
    let journal = Journal::create(&path, options.clone()).unwrap();
    let record = Record::new("a", Direction::ToHost, Kind::Post);
    while journal.record(&record).is_ok() {}
    assert!(journal.close().unwrap_err().to_string().contains("largest size"));
    assert!(fs::metadata(&path).unwrap().len() <= 11_000);
    assert!(!check(&fs::read(&path).unwrap(), None).unwrap().is_closed);
    // It is gone on with, and is as full as it was, counting the line that says so.
    let options = JournalOptions { file_bytes_max: 1, ..options };
    let journal = Journal::create(&path, options).unwrap();
    let _ = journal.record(&record);
    assert!(journal.flush().is_err());
}

#[test]
fn those_who_wait_are_told_of_a_broken_journal() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let options = JournalOptions { queue_bytes: 4096, ..JournalOptions::default() };
    let journal = Journal::to_file(File::from(writer), options).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let record = Record::new("a", Direction::ToHost, Kind::Post);
                    while journal.record(&record).is_ok() {}
                })
            })
            .collect();
        // The pipe fills up, then the queue; then nobody reads any more.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!journal.is_broken());
        drop(reader);
        for writer in writers {
            writer.join().unwrap();
        }
    });
    assert!(journal.is_broken());
}

#[test]
fn a_closed_journal_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    let newest = journal.close().unwrap();
    let told = journal.record(&Record::new("a", Direction::ToGuest, Kind::Exec));
    assert!(matches!(told, Err(WriteError::Closed)));
    assert_eq!(journal.close().unwrap(), newest);
}

#[test]
fn only_a_file_of_its_own_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let create = |path: &Path| Journal::create(path, JournalOptions::default());
    let open = create(&path).unwrap();
    assert!(matches!(create(&path), Err(JournalError::Busy(_))));
    drop(open);
    symlink(&path, folder.path().join("link")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        folder.path().join("fifo"),
        rustix::fs::Mode::from(0o600),
    )
    .unwrap();
    for name in ["link", "fifo", "."] {
        let told = create(&folder.path().join(name)).unwrap_err();
        assert!(matches!(told, JournalError::NotRegular(_)), "{name}: {told}");
    }
    assert!(matches!(create(&folder.path().join("no/such")), Err(JournalError::Open { .. })));
}

#[test]
fn what_is_no_journal_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let good = journal(&path, None, 3);
    let torn = [&good[..], b"{\"seq\":5"].concat();
    let text = b"not a journal\n".to_vec();
    for bytes in [&torn, &text] {
        fs::write(&path, bytes).unwrap();
        let told = Journal::create(&path, JournalOptions::default()).unwrap_err();
        assert!(matches!(told, JournalError::Existing { .. }), "{told}");
        assert_eq!(&fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, &good).unwrap();
    let options = JournalOptions { key: key(), ..JournalOptions::default() };
    assert!(matches!(Journal::create(&path, options), Err(JournalError::Existing { .. })));
    // A file that somebody made for it is begun.
    fs::write(&path, b"").unwrap();
    drop(Journal::create(&path, JournalOptions::default()).unwrap());
    assert!(check(&fs::read(&path).unwrap(), None).unwrap().is_closed);
}

// --- what is found -------------------------------------------------------------------------------

/// One change to a file of lines.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: prop::sample::Index, by: u8 },
    Insert { at: prop::sample::Index, byte: u8 },
    Cut { at: prop::sample::Index },
    Truncate { at: prop::sample::Index },
    Drop { line: prop::sample::Index },
    Swap { one: prop::sample::Index, other: prop::sample::Index },
    Repeat { line: prop::sample::Index, to: prop::sample::Index },
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 1..=255_u8).prop_map(|(at, by)| Change::Flip { at, by }),
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Insert { at, byte }),
        index().prop_map(|at| Change::Cut { at }),
        index().prop_map(|at| Change::Truncate { at }),
        index().prop_map(|line| Change::Drop { line }),
        (index(), index()).prop_map(|(one, other)| Change::Swap { one, other }),
        (index(), index()).prop_map(|(line, to)| Change::Repeat { line, to }),
    ]
}

fn changed(bytes: &[u8], change: &Change) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut bytes = bytes.to_vec();
    let (len, count) = (bytes.len(), lines.len());
    match change {
        Change::Flip { at, by } => bytes[at.index(len)] ^= by,
        Change::Insert { at, byte } => bytes.insert(at.index(len + 1), *byte),
        Change::Cut { at } => drop(bytes.remove(at.index(len))),
        Change::Truncate { at } => bytes.truncate(at.index(len)),
        Change::Drop { line } => {
            lines.remove(line.index(lines.len()));
            return lines.concat();
        }
        Change::Swap { one, other } => {
            lines.swap(one.index(count), other.index(count));
            return lines.concat();
        }
        Change::Repeat { line, to } => {
            let line = lines[line.index(lines.len())];
            lines.insert(to.index(lines.len() + 1), line);
            return lines.concat();
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_single_change_is_found(change in change(), keyed in any::<bool>()) {
        static JOURNALS: std::sync::OnceLock<[Vec<u8>; 2]> = std::sync::OnceLock::new();
        let journals = JOURNALS.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            [None, key()].map(|key| {
                journal(&folder.path().join(format!("{}", key.is_some())), key, 6)
            })
        });
        let key = keyed.then(key).flatten();
        let bytes = &journals[usize::from(keyed)];
        prop_assert!(check(bytes, key.clone()).unwrap().is_closed);
        let other = changed(bytes, &change);
        if &other != bytes {
            let found = check(&other, key);
            prop_assert!(!found.is_ok_and(|summary| summary.is_closed));
        }
    }
}

#[test]
fn the_line_and_what_is_wrong_with_it_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = journal(&folder.path().join("run.journal"), None, 4);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let told = |lines: &[&[u8]]| check(&lines.concat(), None).unwrap_err().to_string();
    let edited = String::from_utf8(lines[2].to_vec()).unwrap().replace("/data/1", "/data/9");
    for (lines, expected) in [
        (
            vec![lines[0], lines[1], edited.as_bytes(), lines[3]],
            "line 3 was changed: its hash is not that of its text",
        ),
        (
            vec![lines[0], lines[1], lines[3]],
            "before line 3 records are missing or were moved: it has number 3, not 2",
        ),
        (vec![lines[0], lines[1], lines[1]], "line 3 was put in or moved: it has number 1, not 2"),
        (
            vec![lines[1]],
            "line 1 is not the head of a journal: the lines before it are missing, or it is none",
        ),
        (vec![lines[0], &lines[1][..50]], "line 2 has no end: it was cut off"),
        (vec![lines[0], b"\n"], "line 2 was changed: it does not end with its hashes"),
        (vec![], "there is no line at all: it is no journal, or was cut down to nothing"),
    ] {
        assert_eq!(told(&lines), expected);
    }
    let mut cut = lines.clone();
    cut.pop();
    assert!(!check(&cut.concat(), None).unwrap().is_closed);
}

#[test]
fn lines_of_another_journal_do_not_follow() {
    let folder = tempfile::tempdir().unwrap();
    let one = journal(&folder.path().join("one"), None, 3);
    let other = journal(&folder.path().join("other"), None, 3);
    let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let mut mixed = lines(&one);
    mixed[2] = lines(&other)[2].clone();
    let told = check(&mixed.concat(), None).unwrap_err();
    assert!(matches!(told, VerifyError::Unlinked { line: 3 }), "{told}");
}

#[test]
fn only_the_key_makes_lines() {
    let folder = tempfile::tempdir().unwrap();
    let keyed = journal(&folder.path().join("keyed"), key(), 2);
    let plain = journal(&folder.path().join("plain"), None, 2);
    let other = JournalKey::new(b"another key, as long").unwrap();
    assert!(check(&keyed, key()).unwrap().is_keyed);
    assert!(matches!(check(&keyed, None), Err(VerifyError::KeyNeeded)));
    assert!(matches!(check(&plain, key()), Err(VerifyError::NotKeyed)));
    let told = check(&keyed, Some(other)).unwrap_err().to_string();
    assert_eq!(told, "line 1 was changed: its hash is not that of its text, or the key is another");
}

#[test]
fn a_hash_kept_elsewhere_shows_a_cut_and_a_new_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let short = journal(&path, None, 2);
    let long = journal(&path, None, 2);
    let head = |bytes: &[u8], head: LineHash| {
        verify(bytes, &VerifyOptions { key: None, head: Some(head) })
    };
    let newest = check(&long, None).unwrap().newest.hash;
    assert!(head(&long, newest).is_ok());
    // It may have grown since.
    assert!(head(&long, check(&short, None).unwrap().newest.hash).is_ok());
    // Cut back to where it was closed before, it verifies by itself.
    assert!(check(&short, None).unwrap().is_closed);
    assert!(matches!(head(&short, newest), Err(VerifyError::HeadMissing(_))));
    let anew = journal(&folder.path().join("anew"), None, 2);
    assert!(matches!(head(&anew, newest), Err(VerifyError::HeadMissing(_))));
}

#[test]
fn a_journal_has_one_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let mut bytes = journal(&path, None, 1);
    // Whoever can write the file can make lines that follow; a head is none of them.
    for (kind, id) in [("journal", "0"), ("open", "0")] {
        let newest = check(&bytes, None).unwrap().newest;
        let before = bytes.len();
        let line = format!(
            "{{\"seq\":{},\"mono_ns\":1,\"wall\":\"\",\"kind\":\"{kind}\",\"version\":1,\
             \"journal\":\"{id}\",\"keyed\":false,\"prev\":\"{}\"",
            newest.seq + 1,
            newest.hash
        );
        let hash = sha256(line.as_bytes());
        bytes.extend(format!("{line},\"hash\":\"{hash}\"}}\n").into_bytes());
        let told = check(&bytes, None).unwrap_err();
        assert!(matches!(told, VerifyError::OtherHead { .. }), "{told}");
        bytes.truncate(before);
    }
}

#[test]
fn what_comes_after_a_cells_end_begins_no_new_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    for kind in [Kind::Spawn, Kind::End, Kind::Recv, Kind::Answer, Kind::Spawn] {
        journal.record(&Record::new("a", Direction::Host, kind)).unwrap();
    }
    journal.close().unwrap();
    let all = entries(&fs::read(&path).unwrap());
    let own: Vec<_> = all.iter().filter(|it| it.cell == "a").map(|it| it.cell_seq).collect();
    assert_eq!(own, [Some(0), Some(1), None, None, Some(0)]);
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    struct Endless;
    impl std::io::Read for Endless {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            out.fill(b'x');
            Ok(out.len())
        }
    }
    let told = verify(std::io::BufReader::new(Endless), &VerifyOptions::default()).unwrap_err();
    assert!(matches!(told, VerifyError::Read(ReadError::TooLong { line: 1 })), "{told}");
}

#[test]
fn a_malformed_line_ends_the_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let mut bytes = journal(&path, None, 1);
    bytes.write_all(b"{\"seq\": 3}\n{}\n").unwrap();
    let mut reader = Reader::new(&bytes[..]);
    assert_eq!(reader.by_ref().take(3).filter(Result::is_ok).count(), 3);
    let told = reader.next().unwrap().unwrap_err().to_string();
    assert!(told.starts_with("line 4 is no record: missing field"), "{told}");
    assert!(reader.next().is_none());
}
