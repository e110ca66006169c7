//! Who has to act on a storage error.

/// Who has to act on an error of this room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request cannot be served as it was made.
    Caller,
    /// The disk, the folder or the files on it.
    Environment,
    /// Volant itself: it did what its own contract forbids.
    Bug,
}
