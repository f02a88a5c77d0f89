//! The two ends of a ring as far as its four words go: positions, and who wakes whom.
//!
//! Nothing in this file touches memory itself; it works on whatever implements [`Signals`]. In the
//! crate that is the shared mapping and futexes, in `cursor_model` it is loom, which tries the
//! interleavings of this very code.
//!
//! # Positions
//!
//! A position counts bytes since the ring was made, modulo 2^32, and is always a multiple of 8. Each
//! side believes its own private copy of its own position, and of the peer's the last value that
//! passed the check.
//!
//! # Announcements
//!
//! Before a side stops watching the peer's position it writes an *announcement* into its own word:
//! how it wants to hear of a change ([`Standing`], in the low three bits), and the peer's position
//! that it knew at that time (the rest; positions have no low bits). Then, after a fence, it looks at
//! the peer's position once more, and stops watching only if that is still the announced one.
//!
//! The other side moves its position first and reads the announcement second, with a fence between.
//! Of two fences one comes first in the total order of sequentially consistent fences: either the
//! announcing side sees the new position and stays, or the moving side sees the announcement and
//! tells. A wake-up cannot be lost, and no word has two writers.
//!
//! The moving side tells once per announcement: it remembers the last one that it has answered and
//! forgets it as soon as the word reads otherwise. An answer to an announcement of position `p` is
//! only given when the own position has left `p`. From then on nobody can sleep on `p`: the futex
//! compares, and positions do not return to `p` before the other side has consumed or produced 4 GiB,
//! during which the word must have been seen to read otherwise. So an announcement already answered
//! needs no second answer, and a burst of records to a side that is slow to wake costs one wake-up.
//!
//! A producer that waits for room is told only when the ring is at least half empty, which has room
//! for any record (see [`max_record`](crate::max_record)). Else a producer and a consumer that differ
//! in speed would wake each other for every record.

use std::io;
use std::time::Duration;

use crate::error::{ChannelError, Violation};
use crate::layout::Word;

/// How a side that does not watch its peer's position wants to hear of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It watches. The whole word is 0 then.
    Awake = 0,
    /// It sleeps on the position: wake it.
    Asleep = 1,
    /// None of its threads is here: ring the bell.
    Away = 2,
}

impl Standing {
    /// The word that announces this, for a peer last seen at `position`.
    const fn announcing(self, position: u32) -> u32 {
        position | self as u32
    }

    /// What a word says. Nonsense from a hostile peer counts as awake: whoever cannot say how to be
    /// told is not told.
    const fn read(announcement: u32) -> (Self, u32) {
        let standing = match announcement & 7 {
            1 => Self::Asleep,
            2 => Self::Away,
            _ => Self::Awake,
        };
        (standing, announcement & !7)
    }
}

/// Access to the four words of one ring, and the means to sleep on them.
pub(crate) trait Signals {
    /// Reads a word, with acquire ordering.
    fn load(&self, word: Word) -> u32;
    /// Writes a word, with release ordering.
    fn store(&self, word: Word, value: u32);
    /// A sequentially consistent fence.
    fn fence(&self);
    /// Sleeps if the word still has the expected value, until woken, for no reason, or until the
    /// timeout passes.
    fn sleep(&self, word: Word, expected: u32, timeout: Option<Duration>) -> io::Result<()>;
    /// Wakes a peer that sleeps on a word.
    fn wake(&self, word: Word) -> io::Result<()>;
    /// Rings the bell of a peer that is away.
    fn ring(&self) -> io::Result<()>;
}

/// What the moving side remembers of the other's announcements.
#[derive(Debug, Default)]
struct Answered {
    announcement: u32,
}

impl Answered {
    /// Tells the peer that our `position` (the word `ours`) has moved, if its announcement asks for
    /// that and `worth` says that the news is worth it.
    fn answer<S: Signals>(
        &mut self,
        signals: &S,
        announcement: u32,
        ours: Word,
        position: u32,
        worth: impl FnOnce(Standing) -> bool,
    ) -> Result<(), ChannelError> {
        if announcement == self.announcement {
            return Ok(());
        }
        self.announcement = 0;
        let (standing, known) = Standing::read(announcement);
        if known == position || !worth(standing) {
            return Ok(());
        }
        match standing {
            Standing::Awake => return Ok(()),
            Standing::Asleep => {
                signals.wake(ours).map_err(|source| ChannelError::Wake { source })?
            }
            Standing::Away => ring(signals)?,
        }
        self.announcement = announcement;
        Ok(())
    }
}

fn ring<S: Signals>(signals: &S) -> Result<(), ChannelError> {
    signals.ring().map_err(|source| ChannelError::RingBell { source })
}

fn sleep<S: Signals>(
    signals: &S,
    word: Word,
    expected: u32,
    timeout: Option<Duration>,
) -> Result<(), ChannelError> {
    signals.sleep(word, expected, timeout).map_err(|source| ChannelError::Sleep { source })
}

/// The writing end of a ring.
#[derive(Debug)]
pub(crate) struct Producer<S> {
    signals: S,
    capacity: u32,
    head: u32,
    tail_seen: u32,
    /// Whether our announcement says anything but awake.
    announced: bool,
    answered: Answered,
}

impl<S: Signals> Producer<S> {
    pub(crate) fn new(signals: S, capacity: u32) -> Self {
        Self {
            signals,
            capacity,
            head: 0,
            tail_seen: 0,
            announced: false,
            answered: Answered::default(),
        }
    }

    /// Where the next record starts.
    pub(crate) fn head(&self) -> u32 {
        self.head
    }

    /// Whether `needed` bytes are free. Looks at the peer's position only if the last one known does
    /// not suffice.
    pub(crate) fn has_room(&mut self, needed: u32) -> Result<bool, Violation> {
        let known = self.capacity - self.head.wrapping_sub(self.tail_seen);
        Ok(known >= needed || self.capacity - self.refresh()? >= needed)
    }

    /// Whether the peer's position reads otherwise than when it was last believed.
    pub(crate) fn tail_moved(&self) -> bool {
        self.signals.load(Word::Tail) != self.tail_seen
    }

    /// Makes `bytes` more visible to the consumer, and wakes it if it sleeps; if it is away, rings
    /// its bell if `urgent`.
    pub(crate) fn publish(&mut self, bytes: u32, urgent: bool) -> Result<(), ChannelError> {
        if self.announced {
            self.announce(Standing::Awake);
        }
        self.head = self.head.wrapping_add(bytes);
        self.signals.store(Word::Head, self.head);
        self.signals.fence();
        let announcement = self.signals.load(Word::Consumer);
        self.answered.answer(&self.signals, announcement, Word::Head, self.head, |standing| {
            standing == Standing::Asleep || urgent
        })
    }

    /// Sleeps until the consumer has moved and the ring is half empty, or for `timeout`, or shorter:
    /// the caller looks again. Rings the bell of a consumer that is away.
    ///
    /// The caller has found less room than a largest record needs, so the ring is more than half
    /// full, and the consumer is bound to pass the half.
    pub(crate) fn sleep(&mut self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        let expected = self.tail_seen;
        self.announce(Standing::Asleep);
        self.signals.fence();
        if self.signals.load(Word::Tail) == expected {
            let (consumer, _) = Standing::read(self.signals.load(Word::Consumer));
            if consumer == Standing::Away {
                ring(&self.signals)?;
            }
            sleep(&self.signals, Word::Tail, expected, timeout)?;
        }
        self.announce(Standing::Awake);
        Ok(())
    }

    /// Asks for a bell when the ring is half empty. `true`: it already is, and no bell was asked for.
    pub(crate) fn leave(&mut self) -> Result<bool, Violation> {
        self.refresh()?;
        self.announce(Standing::Away);
        self.signals.fence();
        if self.refresh()? > self.capacity / 2 {
            return Ok(false);
        }
        self.announce(Standing::Awake);
        Ok(true)
    }

    /// Bytes in use, by the peer's present position, once that has been checked.
    fn refresh(&mut self) -> Result<u32, Violation> {
        let tail = self.signals.load(Word::Tail);
        if !tail.is_multiple_of(8) {
            return Err(Violation::PositionUnaligned { position: tail });
        }
        // Both distances are to our own head. Less in use than before: the peer moved forwards. More:
        // it moved backwards, or past the head and so around the whole range.
        let used = self.head.wrapping_sub(tail);
        if used > self.head.wrapping_sub(self.tail_seen) {
            return Err(Violation::TailOutOfRange { tail, head: self.head, seen: self.tail_seen });
        }
        self.tail_seen = tail;
        Ok(used)
    }

    fn announce(&mut self, standing: Standing) {
        let word = match standing {
            Standing::Awake => 0,
            Standing::Asleep | Standing::Away => standing.announcing(self.tail_seen),
        };
        self.signals.store(Word::Producer, word);
        self.announced = standing != Standing::Awake;
    }
}

/// The reading end of a ring.
#[derive(Debug)]
pub(crate) struct Consumer<S> {
    signals: S,
    capacity: u32,
    tail: u32,
    head_seen: u32,
    answered: Answered,
}

impl<S: Signals> Consumer<S> {
    /// A consumer that is awake.
    pub(crate) fn new(signals: S, capacity: u32) -> Self {
        Self { signals, capacity, tail: 0, head_seen: 0, answered: Answered::default() }
    }

    /// Where the next record starts.
    pub(crate) fn tail(&self) -> u32 {
        self.tail
    }

    /// Bytes published and not yet consumed. Looks at the peer's position only if none are known.
    pub(crate) fn published(&mut self) -> Result<u32, Violation> {
        match self.head_seen.wrapping_sub(self.tail) {
            0 => self.refresh(),
            known => Ok(known),
        }
    }

    /// Whether the peer's position reads otherwise than when it was last believed.
    pub(crate) fn head_moved(&self) -> bool {
        self.signals.load(Word::Head) != self.head_seen
    }

    /// Gives `bytes`, which the caller has copied out, back to the producer, and tells it if it
    /// waits for room.
    pub(crate) fn consume(&mut self, bytes: u32) -> Result<(), ChannelError> {
        self.tail = self.tail.wrapping_add(bytes);
        self.signals.store(Word::Tail, self.tail);
        self.signals.fence();
        let announcement = self.signals.load(Word::Producer);
        let used = self.head_seen.wrapping_sub(self.tail);
        let half = self.capacity / 2;
        self.answered.answer(&self.signals, announcement, Word::Tail, self.tail, |_| used <= half)
    }

    /// Sleeps until the producer has moved, or for `timeout`, or shorter: the caller looks again.
    /// The caller has found nothing published.
    pub(crate) fn sleep(&mut self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        let expected = self.head_seen;
        self.announce(Standing::Asleep);
        self.signals.fence();
        if self.signals.load(Word::Head) == expected {
            sleep(&self.signals, Word::Head, expected, timeout)?;
        }
        self.announce(Standing::Awake);
        Ok(())
    }

    /// Announces that this consumer watches.
    pub(crate) fn enter(&mut self) {
        self.announce(Standing::Awake);
    }

    /// Announces that this consumer is away. `true`: records are left, of which the producer may
    /// not have rung the bell.
    pub(crate) fn leave(&mut self) -> Result<bool, Violation> {
        self.refresh()?;
        self.announce(Standing::Away);
        self.signals.fence();
        Ok(self.refresh()? > 0)
    }

    /// Bytes published, by the peer's present position, once that has been checked.
    fn refresh(&mut self) -> Result<u32, Violation> {
        let head = self.signals.load(Word::Head);
        if !head.is_multiple_of(8) {
            return Err(Violation::PositionUnaligned { position: head });
        }
        // Both distances are to our own tail. Less published than before: the peer moved backwards.
        let published = head.wrapping_sub(self.tail);
        if published > self.capacity || published < self.head_seen.wrapping_sub(self.tail) {
            return Err(Violation::HeadOutOfRange {
                head,
                tail: self.tail,
                seen: self.head_seen,
                capacity_bytes: self.capacity,
            });
        }
        self.head_seen = head;
        Ok(published)
    }

    fn announce(&self, standing: Standing) {
        let word = match standing {
            Standing::Awake => 0,
            Standing::Asleep | Standing::Away => standing.announcing(self.head_seen),
        };
        self.signals.store(Word::Consumer, word);
    }
}
