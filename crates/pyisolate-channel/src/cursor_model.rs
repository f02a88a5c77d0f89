//! Loom tries the interleavings, and the stale reads that the memory model allows, of the cursors.
//!
//! Sleeps have no timeout here, so a lost wake-up is a deadlock, which loom reports. Fences are what
//! prevents it; a control without them makes sure that loom would see it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::cursor::{Consumer, Producer, Signals};
use crate::layout::Word;

/// Bytes of a record here, and of a ring that takes two of them.
const RECORD: u32 = 8;
const CAPACITY: u32 = 2 * RECORD;

/// The words of one ring, a futex for each, and a bell.
struct Model {
    words: [AtomicU32; 4],
    futexes: [(Mutex<()>, Condvar); 2],
    bells: Mutex<u32>,
    fenced: bool,
}

/// A plain `Arc`, since loom's own would run into a second panic while a control unwinds.
#[derive(Clone)]
struct Shared(Arc<Model>);

impl Shared {
    fn new(fenced: bool) -> Self {
        Self(Arc::new(Model {
            words: std::array::from_fn(|_| AtomicU32::new(0)),
            futexes: std::array::from_fn(|_| (Mutex::new(()), Condvar::new())),
            bells: Mutex::new(0),
            fenced,
        }))
    }

    fn bells(&self) -> u32 {
        *self.0.bells.lock().unwrap()
    }
}

impl Signals for Shared {
    fn load(&self, word: Word) -> u32 {
        self.0.words[word as usize].load(Ordering::Acquire)
    }

    fn store(&self, word: Word, value: u32) {
        self.0.words[word as usize].store(value, Ordering::Release);
    }

    fn fence(&self) {
        if self.0.fenced {
            fence(Ordering::SeqCst);
        }
    }

    /// As in the kernel, the comparison and the decision to sleep are one step against `wake`.
    fn sleep(&self, word: Word, expected: u32, _: Option<Duration>) -> io::Result<()> {
        let (lock, woken) = &self.0.futexes[word as usize];
        let guard = lock.lock().unwrap();
        if self.load(word) == expected {
            drop(woken.wait(guard).unwrap());
        }
        Ok(())
    }

    fn wake(&self, word: Word) -> io::Result<()> {
        let (lock, woken) = &self.0.futexes[word as usize];
        let guard = lock.lock().unwrap();
        woken.notify_all();
        drop(guard);
        Ok(())
    }

    fn ring(&self) -> io::Result<()> {
        *self.0.bells.lock().unwrap() += 1;
        Ok(())
    }
}

fn produce(signals: &Shared, records: u32) {
    let mut producer = Producer::new(signals.clone(), CAPACITY);
    for _ in 0..records {
        while !producer.has_room(RECORD).unwrap() {
            producer.sleep(None).unwrap();
        }
        producer.publish(RECORD, false).unwrap();
    }
}

fn consume(signals: &Shared, records: u32) {
    let mut consumer = Consumer::new(signals.clone(), CAPACITY);
    for _ in 0..records {
        while consumer.published().unwrap() == 0 {
            consumer.sleep(None).unwrap();
        }
        consumer.consume(RECORD).unwrap();
    }
}

/// Loom explores all schedules with up to this many preemptions. Each known way of losing a wake-up
/// needs two.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn transfer(fenced: bool, records: u32) {
    check(move || {
        let signals = Shared::new(fenced);
        let consumer = thread::spawn({
            let signals = signals.clone();
            move || consume(&signals, records)
        });
        produce(&signals, records);
        consumer.join().unwrap();
    });
}

#[test]
fn a_sleeping_consumer_is_always_woken() {
    transfer(true, 2);
}

#[test]
fn a_producer_that_sleeps_for_room_is_always_woken() {
    transfer(true, 4);
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_fences_a_wake_up_is_lost() {
    transfer(false, 2);
}

/// A consumer that leaves either learns of an urgent record or is rung for it.
fn urgent_records(fenced: bool) {
    check(move || {
        let signals = Shared::new(fenced);
        let producer = thread::spawn({
            let signals = signals.clone();
            move || {
                let mut producer = Producer::new(signals, CAPACITY);
                producer.publish(RECORD, true).unwrap();
                producer.publish(RECORD, true).unwrap();
            }
        });
        let mut consumer = Consumer::new(signals.clone(), CAPACITY);
        let mut received = 0;
        let mut told = false;
        // Twice, so that the second announcement may equal one that was answered.
        for _ in 0..2 {
            consumer.enter();
            while consumer.published().unwrap() > 0 {
                consumer.consume(RECORD).unwrap();
                received += 1;
            }
            told = consumer.leave().unwrap();
        }
        producer.join().unwrap();
        assert!(received == 2 || told || signals.bells() > 0, "a record is left and nobody knows");
    });
}

#[test]
fn an_urgent_record_is_never_left_unheard() {
    urgent_records(true);
}

#[test]
#[should_panic(expected = "nobody knows")]
fn control_without_fences_an_urgent_record_is_left_unheard() {
    urgent_records(false);
}

#[test]
fn a_producer_that_leaves_is_rung_when_there_is_room() {
    check(|| {
        let signals = Shared::new(true);
        let mut producer = Producer::new(signals.clone(), CAPACITY);
        producer.publish(RECORD, false).unwrap();
        producer.publish(RECORD, false).unwrap();
        let consumer = thread::spawn({
            let signals = signals.clone();
            move || {
                let mut consumer = Consumer::new(signals, CAPACITY);
                for _ in 0..2 {
                    assert!(consumer.published().unwrap() > 0, "published before the thread began");
                    consumer.consume(RECORD).unwrap();
                }
            }
        });
        let room = producer.leave().unwrap();
        consumer.join().unwrap();
        assert!(room || signals.bells() > 0, "there is room and nobody knows");
    });
}
