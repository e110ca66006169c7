//! Threads for work that nobody waits for as much as for the rest.

/// How much they give way to sockets, log and analysis: 10 of 19 leaves them a tenth of a contended core.
const NICENESS: i32 = 10;

/// Lowers the priority of the calling thread.
pub fn give_way() {
    #[cfg(unix)]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("keep the usual priority for a thread: {error}");
    }
}
