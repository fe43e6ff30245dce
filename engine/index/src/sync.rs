//! The atomics in use: the standard library's, or loom's when the models run.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

use std::sync::Arc;

/// A value that one thread replaces as a whole and others read without waiting.
#[cfg(not(loom))]
pub(crate) struct Shared<T>(arc_swap::ArcSwap<T>);

#[cfg(not(loom))]
pub(crate) type SharedGuard<T> = arc_swap::Guard<Arc<T>>;

#[cfg(not(loom))]
impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// The value of this moment; it stays alive for as long as the guard does.
    pub(crate) fn load(&self) -> SharedGuard<T> {
        self.0.load()
    }

    pub(crate) fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

/// Under loom the pointer is a number that names one of all values there were: a reader may get any of them that the
/// order of the two threads allows, which is no less than the real one promises. None is ever freed; that is left to
/// the reference counts of the real one.
#[cfg(loom)]
pub(crate) struct Shared<T> {
    values: std::sync::Mutex<Vec<Arc<T>>>,
    current: loom::sync::atomic::AtomicUsize,
}

#[cfg(loom)]
pub(crate) type SharedGuard<T> = Arc<T>;

#[cfg(loom)]
impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        let values = std::sync::Mutex::new(vec![Arc::new(value)]);
        Self { values, current: loom::sync::atomic::AtomicUsize::new(0) }
    }

    pub(crate) fn load(&self) -> SharedGuard<T> {
        let current = self.current.load(Ordering::Acquire);
        self.values.lock().expect("no model panics while it holds this")[current].clone()
    }

    pub(crate) fn store(&self, value: T) {
        let mut values = self.values.lock().expect("no model panics while it holds this");
        values.push(Arc::new(value));
        let current = values.len() - 1;
        drop(values);
        self.current.store(current, Ordering::Release);
    }
}

/// How far readers can see: the number of the last event whose every effect was written.
#[derive(Debug)]
pub struct Watermark(AtomicU64);

impl Watermark {
    /// Nothing is to be seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The last event that readers see the effect of. Acquire: pairs with [`Self::raise`].
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(if mutated!(RelaxedWatermark) { Ordering::Relaxed } else { Ordering::Acquire })
    }

    /// Raises it. Release: whoever reads this number sees every index word and record that was written before. One
    /// writer only.
    pub fn raise(&self, to: u64) {
        self.0.store(to, if mutated!(RelaxedWatermark) { Ordering::Relaxed } else { Ordering::Release });
    }
}

impl Default for Watermark {
    fn default() -> Self {
        Self::new()
    }
}

/// Deliberate mistakes, which the models must catch: tests of the tests.
#[cfg(loom)]
pub mod mutation {
    use std::sync::atomic::{AtomicU8, Ordering};

    /// A mistake that can be switched on for the models.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum Mutation {
        /// None: the code as it is.
        None,
        /// Words are written without Release.
        RelaxedPublish,
        /// Marks overwrite the word instead of adding to it.
        MarkByStore,
        /// A reader trusts a word that was moved away.
        IgnoreMoved,
        /// Growth does not set MOVED.
        ForgetMoved,
        /// Words are read without Acquire.
        RelaxedRead,
        /// The watermark is raised without Release and read without Acquire.
        RelaxedWatermark,
        /// Growth sets MOVED before the copy is there.
        MovedBeforeCopy,
        /// A reader takes the word of a free place for that of a token with the same tag.
        FreeIsAToken,
        /// A reader takes a record in a segment it does not know for no record.
        UnseenIsNone,
        /// A segment is given up before the last word that names a record in it was changed.
        GivenUpTooEarly,
        /// A word names a record in a segment that no reader can know yet.
        SegmentUnpublished,
    }

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Switches one mistake on for the whole process.
    pub fn set(mutation: Mutation) {
        ACTIVE.store(mutation as u8, Ordering::SeqCst);
    }

    pub(crate) fn is(mutation: Mutation) -> bool {
        ACTIVE.load(Ordering::SeqCst) == mutation as u8
    }
}

/// Whether a deliberate mistake is switched on; never outside of the models.
#[cfg(loom)]
macro_rules! mutated {
    ($mutation:ident) => {
        $crate::sync::mutation::is($crate::sync::mutation::Mutation::$mutation)
    };
}
#[cfg(not(loom))]
macro_rules! mutated {
    ($mutation:ident) => {
        false
    };
}
pub(crate) use mutated;
