//! The word to stop, as the running parts of rooms hear it.

use tokio::sync::watch;

/// Resolves when the service is told to stop, or when nobody is left who could tell.
pub async fn requested(signal: &mut watch::Receiver<bool>) {
    // The guard that `wait_for` returns must not live over an await of the caller.
    drop(signal.wait_for(|stop| *stop).await);
}
