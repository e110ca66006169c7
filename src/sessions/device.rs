//! What the server believes of one device: the session it should be in, and the command it has not confirmed.

use schemas::{SessionId, SessionStatus};

use super::DeviceStatus;
use crate::hub::DeviceMessage;

/// A command that was sent, or would have been had the device been there.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) command_id: String,
    pub(super) message: DeviceMessage,
    pub(super) sent_at_us: i64,
    pub(super) attempts: u32,
}

/// `upload_complete` came for a session that nobody stopped; the device was asked whether it really is not streaming.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubted {
    pub(super) session: SessionId,
    pub(super) asked_at_us: i64,
}

/// The live session of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) session: SessionId,
    pub(super) status: SessionStatus,
    pub(super) started_at_us: i64,
    /// When it entered `status`.
    pub(super) changed_at_us: i64,
}

/// One device. Behind an async mutex: what happens to one device happens in order.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) live: Option<Live>,
    pub(super) pending: Option<Pending>,
    pub(super) doubted: Option<Doubted>,
    /// When it was heard without a socket: a poll, a heartbeat.
    pub(super) heard_at_us: Option<i64>,
    /// What it last said of itself, and when.
    pub(super) told: Option<(i64, DeviceStatus)>,
    /// The session whose frames ceased while it should record, as the admins were told.
    pub(super) silent: Option<SessionId>,
    /// A stray stream was told to stop since the device connected.
    pub(super) stray_stopped: bool,
}

impl Device {
    /// Forgets the command if it is this one; true if it was.
    pub(super) fn confirm(&mut self, command_id: &str) -> bool {
        self.pending.take_if(|pending| pending.command_id == command_id).is_some()
    }

    /// The live session if it is this one.
    pub(super) fn live_as(&mut self, session: SessionId) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.session == session)
    }
}
