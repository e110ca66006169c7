//! Delivers what is owed, one user at a time in order, whenever there is reason to: a new row, a new socket, time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use schemas::UserId;
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, debug, info_span, warn};

use super::{Error, GRANTS_LIMIT, Notice, WEBHOOKS_LIMIT, WebhookRow, webhook};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::hub::{self, UserMessage};
use crate::store::catalog::{Catalog, OutboxRow};

/// Times and limits of delivery.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a socket has to prove that it received a notice; then it stays owed until the next occasion.
    pub receipt_timeout: Duration,
    /// How often users that are connected and still owed something are tried again.
    pub retry_interval: Duration,
    /// A player whom no socket reached within this gets a WeChat message, if one is granted.
    pub wechat_after: Duration,
    /// Page of the mini-program that the message opens.
    pub wechat_page: String,
    /// Fields of the message's template: `thing1=…`, with {strokes}, {score}, {session}, {time} and {text}.
    pub wechat_fields: Vec<String>,
    /// How long a webhook may take.
    pub webhook_timeout: Duration,
    /// Call webhooks inside private networks too.
    pub webhooks_allow_private: bool,
    /// A notice that is older is not tried by these channels any more.
    pub give_up_after: Duration,
}

/// Notices of one user sent at one occasion; the rest follows at once, in further steps.
const BATCH_LIMIT: i64 = 100;
/// Wake-ups that may wait; a missed one is made up for at the next retry interval.
const WAKE_QUEUE_LIMIT: usize = 1024;

/// The notify room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    wake: mpsc::Sender<UserId>,
    catalog: Catalog,
    clock: Clock,
    entropy: Entropy,
    allow_private: bool,
}

impl Handle {
    /// A socket of the user is up: what is owed goes there.
    pub fn user_connected(&self, user: UserId) {
        if self.wake.try_send(user).is_err() {
            metrics::counter!("volant_notify_delayed_wakes_total").increment(1);
        }
    }

    /// Where other rooms say whose outbox has a new row.
    #[must_use]
    pub fn waker(&self) -> mpsc::Sender<UserId> {
        self.wake.clone()
    }

    /// The notices of a user with ids after one, the oldest first.
    pub async fn since(&self, user: UserId, after: &str, limit: i64) -> Result<Vec<Notice>, Error> {
        Ok(self.catalog.notices_since(user, after, limit).await?)
    }

    /// The user says that they have read a notice; false if it is none of theirs.
    pub async fn acknowledge(&self, user: UserId, id: &str) -> Result<bool, Error> {
        Ok(self.catalog.acknowledge_notice(user, id, self.clock.now_us()).await?)
    }

    /// Sets up a webhook; its secret is told this once.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], [`Error::TooManyWebhooks`].
    pub async fn add_webhook(&self, user: Option<UserId>, url: &str, by: &str) -> Result<WebhookRow, Error> {
        webhook::check(url, self.allow_private)?;
        let known = self.catalog.webhooks(user).await?;
        let on = |hook: &&WebhookRow| hook.disabled_at_us.is_none() && hook.user_id == user;
        if known.iter().filter(on).count() >= WEBHOOKS_LIMIT {
            return Err(Error::TooManyWebhooks);
        }
        let row = WebhookRow {
            webhook_id: format!("wh-{}", uuid::Builder::from_random_bytes(self.entropy.bytes()).into_uuid().simple()),
            user_id: user,
            url: url.to_owned(),
            secret: webhook::secret(self.entropy.bytes()),
            created_by: by.to_owned(),
            created_at_us: self.clock.now_us(),
            disabled_at_us: None,
        };
        self.catalog.insert_webhook(&row).await?;
        Ok(row)
    }

    /// Webhooks; of one user for `Some`.
    pub async fn webhooks(&self, user: Option<UserId>) -> Result<Vec<WebhookRow>, Error> {
        Ok(self.catalog.webhooks(user).await?)
    }

    /// Ends a webhook; false if there is none that is on, or it is somebody else's than `user`'s.
    pub async fn remove_webhook(&self, webhook_id: &str, user: Option<UserId>) -> Result<bool, Error> {
        match self.catalog.webhook(webhook_id).await? {
            Some(hook) if user.is_none() || hook.user_id == user => {
                Ok(self.catalog.disable_webhook(webhook_id, self.clock.now_us()).await?)
            }
            _ => Ok(false),
        }
    }

    /// Notes that a user accepted one subscribe message by a template in the mini-program; how many are left.
    ///
    /// # Errors
    /// [`Error::InvalidTemplate`], [`Error::TooManyGrants`].
    pub async fn grant(&self, user: UserId, template_id: &str) -> Result<i64, Error> {
        if template_id.is_empty() || template_id.len() > 64 || !template_id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::InvalidTemplate);
        }
        if self.catalog.grants_left(user, template_id).await? >= GRANTS_LIMIT {
            return Err(Error::TooManyGrants { user });
        }
        self.catalog.insert_grant(user, template_id, self.clock.now_us()).await?;
        Ok(self.catalog.grants_left(user, template_id).await?)
    }

    /// How many notices are owed to anybody.
    pub async fn owed_count(&self) -> Result<i64, Error> {
        Ok(self.catalog.owed_count().await?)
    }
}

/// The part that runs by itself.
#[derive(Debug)]
pub struct Service {
    inner: Arc<Inner>,
    woken: mpsc::Receiver<UserId>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    clock: Clock,
    catalog: Catalog,
    hub: hub::Handle,
    /// Users whose notices are being delivered right now; true if there was another reason meanwhile.
    busy: Mutex<HashMap<UserId, bool>>,
}

/// Makes the room and its running part.
#[must_use]
pub fn new(options: Options, clock: Clock, entropy: Entropy, catalog: Catalog, hub: hub::Handle) -> (Handle, Service) {
    let (wake, woken) = mpsc::channel(WAKE_QUEUE_LIMIT);
    let handle = Handle {
        wake,
        catalog: catalog.clone(),
        clock: clock.clone(),
        entropy,
        allow_private: options.webhooks_allow_private,
    };
    let inner = Inner { options, clock, catalog, hub, busy: Mutex::default() };
    (handle, Service { inner: Arc::new(inner), woken })
}

impl Service {
    /// Runs until `shutdown` turns true. What is not delivered then stays owed.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut retry = tokio::time::interval(self.inner.options.retry_interval);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = crate::shutdown::requested(&mut shutdown) => return,
                Some(user) = self.woken.recv() => self.inner.occasion(user),
                _ = retry.tick() => {
                    for user in self.inner.hub.users() {
                        self.inner.occasion(user);
                    }
                }
            }
        }
    }
}

impl Inner {
    /// Starts delivering to a user, or tells the running delivery to look once more. One delivery a user at a time, so
    /// that a notice never goes out twice because two occasions met.
    fn occasion(self: &Arc<Self>, user: UserId) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(again) = busy.get_mut(&user) {
            *again = true;
            return;
        }
        busy.insert(user, false);
        drop(busy);
        let inner = Arc::clone(self);
        let span = info_span!("deliver", user.id = %user);
        tokio::spawn(
            async move {
                loop {
                    if let Err(error) = inner.deliver_to(user).await {
                        warn!(error = &error as &dyn std::error::Error, "notices of user {user} are delivered later");
                    }
                    let mut busy = inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
                    match busy.get_mut(&user) {
                        Some(again) if *again => *again = false,
                        _ => {
                            busy.remove(&user);
                            return;
                        }
                    }
                }
            }
            .instrument(span),
        );
    }

    /// Delivers what a user is owed, in order, until nothing is owed or a notice gets no receipt.
    async fn deliver_to(&self, user: UserId) -> Result<(), Error> {
        loop {
            let owed = self.catalog.owed_to(user, BATCH_LIMIT).await?;
            if owed.is_empty() {
                return Ok(());
            }
            for notice in owed {
                if !self.deliver(&notice).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Sends one notice to every socket of its user; true when one of them proved that it received it.
    async fn deliver(&self, notice: &OutboxRow) -> Result<bool, Error> {
        let message = UserMessage::AnalysisComplete {
            notification_id: notice.notification_id.clone(),
            session_id: notice.session_id,
            payload: notice.payload.as_str().into(),
        };
        let mut receipts: FuturesUnordered<_> = self.hub.send_to_user(notice.user_id, &message).into_iter().collect();
        if receipts.is_empty() {
            return Ok(false);
        }
        self.catalog.note_attempt(&notice.notification_id).await?;
        let received = async {
            while let Some(receipt) = receipts.next().await {
                if receipt.is_ok() {
                    return true;
                }
            }
            false
        };
        if !tokio::time::timeout(self.options.receipt_timeout, received).await.unwrap_or(false) {
            metrics::counter!("volant_notify_unconfirmed_total").increment(1);
            debug!(notification.id = %notice.notification_id, "notice got no receipt and stays owed");
            return Ok(false);
        }
        self.catalog.mark_delivered(&notice.notification_id, self.clock.now_us()).await?;
        metrics::counter!("volant_notify_delivered_total").increment(1);
        Ok(true)
    }
}
