//! Analyses that begin while their session's file is still being written, so that a player waits for the longer of the two
//! and not for both.
//!
//! Nothing is owed by them and nothing of them is kept on disk. The job that the seal's commit makes takes what was begun of
//! the very same rows by the same pipeline, and does the work itself if there is no such thing: after a restart, on
//! another node, with several sessions that end at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use pipelines::Analysis;
use schemas::{SessionId, UserId};
use tokio::sync::oneshot;

use super::{Error, Known};

/// How one ended that was begun.
pub(super) type Outcome = Result<Arc<Analysis>, Error>;

/// Analyses that nobody asked for yet; the oldest is forgotten. A failed seal leaves its own here until it succeeds.
const KEPT: usize = 4;

/// What was begun, by session, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<VecDeque<Begun>>);

#[derive(Debug)]
struct Begun {
    session: SessionId,
    input: Input,
    /// Of the pipeline and its model.
    by_sha256: String,
    outcome: oneshot::Receiver<Outcome>,
}

/// What an analysis is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) revision: i64,
    /// Rows are only added to a recording, so their number names them.
    pub(super) taken_rows: usize,
    /// With whose earlier sessions it is compared.
    pub(super) user: Option<UserId>,
}

impl Ahead {
    /// Notes that an analysis begins, in the place of an earlier one of the session; gives where its outcome goes to. `None` if that
    /// very one was begun before.
    pub(super) fn begin(&self, session: SessionId, input: Input, by: &Known) -> Option<oneshot::Sender<Outcome>> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.iter().any(|begun| begun.is(session, input, by)) {
            return None;
        }
        begun.retain(|begun| begun.session != session);
        if begun.len() == KEPT {
            begun.pop_front();
        }
        let (done, outcome) = oneshot::channel();
        begun.push_back(Begun { session, input, by_sha256: by.sha256.clone(), outcome });
        Some(done)
    }

    /// What was begun of this by this pipeline, done or not. Anything else that was begun of the session is of no use
    /// any more and is forgotten.
    pub(super) fn take(&self, session: SessionId, input: Input, by: &Known) -> Option<oneshot::Receiver<Outcome>> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = begun.iter().position(|begun| begun.session == session)?;
        begun.remove(at).filter(|begun| begun.is(session, input, by)).map(|begun| begun.outcome)
    }
}

impl Begun {
    fn is(&self, session: SessionId, input: Input, by: &Known) -> bool {
        self.session == session && self.input == input && self.by_sha256 == by.sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Registry;

    fn known() -> Known {
        let mut found = Registry::new(std::path::PathBuf::from("no such folder")).look();
        found.known.remove(pipelines::Pipeline::builtin().name()).unwrap()
    }

    const INPUT: Input = Input { revision: 1, taken_rows: 100, user: Some(UserId(7)) };

    #[test]
    fn only_the_same_input_by_the_same_pipeline_is_taken() {
        let by = known();
        let other = Known { sha256: "another".to_owned(), ..by.clone() };
        for (input, asked_by, expected) in [
            (INPUT, &by, true),
            (Input { taken_rows: 101, ..INPUT }, &by, false),
            (Input { revision: 2, ..INPUT }, &by, false),
            (Input { user: None, ..INPUT }, &by, false),
            (INPUT, &other, false),
        ] {
            let ahead = Ahead::default();
            let done = ahead.begin(SessionId(1), INPUT, &by).unwrap();
            assert!(ahead.take(SessionId(2), INPUT, &by).is_none());
            assert_eq!(ahead.take(SessionId(1), input, asked_by).is_some(), expected);
            assert!(ahead.take(SessionId(1), INPUT, &by).is_none(), "taken or forgotten");
            drop(done);
        }
    }

    #[test]
    fn a_seal_that_is_tried_again_is_not_analysed_again_unless_rows_came() {
        let (ahead, by) = (Ahead::default(), known());
        let first = ahead.begin(SessionId(1), INPUT, &by).unwrap();
        assert!(ahead.begin(SessionId(1), INPUT, &by).is_none());
        let more = Input { taken_rows: 130, ..INPUT };
        let second = ahead.begin(SessionId(1), more, &by).unwrap();
        assert!(first.is_closed() && !second.is_closed());
        assert!(ahead.take(SessionId(1), more, &by).is_some());
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let (ahead, by) = (Ahead::default(), known());
        let done: Vec<_> =
            (0..=KEPT as i64).map(|session| ahead.begin(SessionId(session), INPUT, &by).unwrap()).collect();
        assert!(ahead.take(SessionId(0), INPUT, &by).is_none());
        assert!(done.iter().skip(1).all(|done| !done.is_closed()));
        assert!(ahead.take(SessionId(KEPT as i64), INPUT, &by).is_some());
    }
}
